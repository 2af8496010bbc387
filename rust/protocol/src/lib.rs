//! Quorate's protocol, as pure state machines and plain data.
pub mod error;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod keyspace;
pub mod level;
pub mod ring;
pub mod store;
pub mod time;
pub mod versions;
