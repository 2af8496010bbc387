//! The node program: the shell that runs the protocol's roles as ractor actors, on real disks and networks.

pub mod client_listener;
pub mod clock;
pub mod commit_batcher;
pub mod config;
pub mod disk;
pub mod disk_space;
pub mod fatal;
pub mod fault_control;
pub mod files;
pub mod inbox;
pub mod inspection;
pub mod layout;
pub mod listeners;
pub mod local_client;
pub mod node;
pub mod node_status;
pub mod parent_pipe;
pub mod peer_registry;
pub mod peers;
pub mod readers;
pub mod recording;
pub mod role_actor;
pub mod role_registry;
pub mod router;
pub mod rpc_spans;
pub mod run;
pub mod service;
pub mod shell;
pub mod start_error;
pub mod supervisor;
pub mod telemetry;
pub mod transport;

pub use run::run;
