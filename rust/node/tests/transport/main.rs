//! The transport on real sessions: in one process where that is enough, in child processes where nodes are killed,
//! stopped and restarted.

mod messages;
mod support;
