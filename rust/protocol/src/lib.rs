//! Quorate's protocol, as pure state machines and plain data.
pub mod error;
pub mod ids;
pub mod keyspace;
pub mod level;
pub mod ring;
pub mod store;
pub mod time;
