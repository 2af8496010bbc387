//! The thread that the clients of a process work on.

use std::io;

use quorate_core::error::Error;
use quorate_core::threads::try_threads;
use tokio::runtime::{Builder, Runtime};

/// A runtime with one thread, for all clients of a process; the threads that wait for answers work as well.
///
/// # Errors
/// [`Error::Overloaded`] when the system gives no thread (`ulimit -u`, a control group's `pids.max`), or no socket to wait on.
pub fn runtime() -> Result<Runtime, Error> {
    let refused = |error: io::Error| Error::Overloaded(format!("no thread for the client: {error}"));
    try_threads(1).map_err(refused)?;
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("quorate-client")
        .enable_all()
        .build()
        .map_err(refused)
}
