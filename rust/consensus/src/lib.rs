//! State replicated by Raft: the control plane, and consensus keyspaces.
//!
//! [`control`] is one group in which the nodes agree on members and keyspaces. [`shard`] is a server of a
//! consensus keyspace's group, whose state is in the store; [`shard::forwarder`] finds the leaders of a
//! keyspace's groups for requests that arrive at any node. Both run the Raft of `quorate-raft` in one kind of
//! host (`host`), whose state is [`rows`] of the store, and report status alike.

pub mod control;
mod host;
mod instance;
mod report;
pub mod rows;
pub mod shard;
mod turn;

pub use instance::Instance;
