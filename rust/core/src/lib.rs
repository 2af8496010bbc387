//! What every part of Quorate shares, and nothing that only some need.
//!
//! [`contract`] says what a role is and how it is driven. The rest is vocabulary: [`ids`] and [`time`], [`error`] (definite or
//! unknown), [`key`] and [`level`], [`hlc`] timestamps, what roles ask of a [`store`] and of [`files`]; and two small tools
//! that several roles need: [`attempts`] (what may be said after retries) and [`dedup`] (to do a thing once). [`bugs`] are
//! mistakes that tests ask for, and [`threads`] asks the system whether it has some.
//!
//! The crate knows no message, no protocol and no I/O.

pub mod attempts;
pub mod bugs;
pub mod contract;
pub mod dedup;
pub mod error;
pub mod files;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod level;
pub mod store;
pub mod threads;
pub mod time;
