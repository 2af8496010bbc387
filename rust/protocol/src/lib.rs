//! Quorate's protocol, as pure state machines and plain data.
pub mod api;
pub mod bugs;
pub mod control;
pub mod error;
pub mod files;
pub mod frame;
pub mod hlc;
pub mod ids;
pub mod instance;
pub mod key;
pub mod keyspace;
pub mod level;
pub mod link;
pub mod message;
pub mod node;
pub mod placement;
pub mod quorum;
pub mod raft;
pub mod ring;
pub mod role;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod topology;
#[cfg(test)]
mod transcript;
pub mod versions;
pub mod wire;
