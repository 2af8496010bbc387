//! The transport on real sessions: in one process where possible, in child processes where nodes are killed,
//! stopped and restarted.

mod child;
mod faults;
mod garbage;
mod identity;
mod messages;
mod processes;
mod support;
