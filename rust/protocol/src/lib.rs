//! Quorate's protocol, as pure state machines and plain data.
pub mod ids;
pub mod time;
