//! What clients and nodes say to each other, and what their bytes are.
//!
//! | | |
//! |---|---|
//! | what clients ask, and the answers | [`api`], [`shard_command`], in [frames](frame) |
//! | which role takes a request, and whether it is let in | [`routing`], [`admission`] |
//! | what roles of nodes say to each other | [`message`], [`control_command`]; within a node: [`local`] |
//! | their bytes, and the connection between two nodes | [`wire`], [`link`] |
//! | the roles of a node: events, effects, which exist | [`role`], [`node`] |
//! | members, keyspaces, who owns which keys | [`topology`], [`keyspace`], [`placement`] |
//! | what people see, and what they break | [`telemetry`], [`faults`] |
//!
//! The roles of keyspaces and of Raft groups are in the crates above, `quorate-quorum` and `quorate-consensus`; the node role
//! and the link are here.

pub mod admission;
pub mod api;
pub mod control_command;
pub mod faults;
pub mod frame;
pub mod keyspace;
pub mod link;
pub mod local;
pub mod message;
pub mod node;
pub mod placement;
pub mod role;
pub mod routing;
pub mod shard_command;
pub mod telemetry;
pub mod topology;
pub mod wire;
