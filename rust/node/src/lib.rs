//! The node program: the shell that runs the protocol's roles as ractor actors, on real disks and networks.

pub mod clock;
pub mod config;
pub mod listener;
pub mod telemetry;
pub mod transport;
