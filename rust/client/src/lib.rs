//! A client of a Quorate cluster: [`core`] is a pure role, which the simulator drives unchanged; [`shell`] runs it on
//! sockets; [`bench`] measures a cluster with it.

pub mod bench;
pub mod core;
pub mod shell;

pub use core::{CallOptions, Outcome, Trace};
pub use shell::{
    Call, Client, ConnectOptions, Consensus, Keyspace, LogPage, OperationOptions, RecordPage, Reply,
    ScanRange,
};
