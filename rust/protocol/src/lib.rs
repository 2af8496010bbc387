//! The protocols of clients and nodes: requests, messages and their encoding.
//!
//! | | |
//! |---|---|
//! | requests of clients, and responses | [`api`], [`shard_command`], in [frames](frame) |
//! | routing of requests to roles, and admission | [`routing`], [`admission`] |
//! | messages between roles of different nodes | [`message`], [`control_command`]; within a node: [`local`] |
//! | their encoding, and the connection between two nodes | [`wire`], [`link`] |
//! | the roles of a node: events, effects, which exist | [`role`], [`node`] |
//! | members, keyspaces, owners of keys | [`topology`], [`keyspace`], [`placement`] |
//! | observability and fault injection | [`telemetry`], [`faults`] |
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
