//! The thread that the clients of a process work on.

use std::io;

use quorate_core::error::Error;
use tokio::runtime::{Builder, Runtime};

const NAME: &str = "quorate-client";

/// A runtime with one thread, for all clients of a process; the threads that wait for answers work as well.
///
/// # Errors
/// [`Error::Overloaded`] when the system gives no thread (`ulimit -u`, a control group's `pids.max`), or no socket to wait on.
pub fn runtime() -> Result<Runtime, Error> {
    let refused = |error: io::Error| Error::Overloaded(format!("no thread for the client: {error}"));
    // tokio panics where it gets no thread: whether there is one is tried before.
    let trial = std::thread::Builder::new().name(NAME.to_owned());
    let tried = trial.spawn(|| {}).map_err(refused)?.join();
    tried.map_err(|_| Error::Overloaded("the client's thread ended at once".to_owned()))?;
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(NAME)
        .enable_all()
        .build()
        .map_err(refused)
}
