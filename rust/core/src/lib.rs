//! The definitions that all parts of Quorate share.
//!
//! [`contract`] defines roles and how they are driven. The rest is vocabulary: [`ids`] and [`time`],
//! [`error`] (definite or unknown), [`key`] and [`level`], [`hlc`] timestamps, the operations of a [`store`]
//! and of [`files`]; and two small tools that several roles need: [`attempts`] (the final error after
//! retries) and [`dedup`] (deduplication). [`bugs`] are deliberate mistakes for tests, and [`threads`] checks
//! whether the system has threads.
//!
//! The crate has no messages, no protocol and no I/O.

pub mod attempts;
pub mod bugs;
pub mod contract;
pub mod dedup;
pub mod error;
pub mod files;
pub mod hex;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod level;
pub mod store;
pub mod threads;
pub mod time;
