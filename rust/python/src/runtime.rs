//! The threads that clients run on, and how a Python thread blocks for an answer.
//!
//! **No thread of the runtime touches Python.** A native thread that does so while the interpreter ends aborts the process:
//! it attaches to what is being destroyed. So this crate, which depends on pyo3, spawns nothing, and never calls
//! `Python::attach` (`clippy.toml` forbids both); the crates that spawn (the client's driver and its batches) do not depend
//! on pyo3. The thread that waits for an answer drives the call: a thread that blocks does so here, an event loop in
//! [`crate::executor`]. That thread converts the answer into a Python object. A thread of the runtime that is still busy
//! when the interpreter ends has nothing of it, and dies with the process. That is why no hook shuts the runtime down: one of
//! `atexit` would fail the calls that hooks registered earlier make after it.
//!
//! Threads of Python that block here are daemon threads when the interpreter ends. They come back to it with an answer only,
//! and pyo3 then suspends them forever.
//!
//! There is one runtime per process. A forked child has none of its parent's threads, so it gets a runtime of its own
//! as soon as it connects; its parent's is never touched again, not even to be dropped.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use pyo3::prelude::*;
use quorate_core::error::Error;
use tokio::runtime::Runtime;

use crate::errors::exception;

/// How often a blocked call looks whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// The runtime and the process that it belongs to. Locked only by threads that hold the interpreter, and so never by
/// another thread at the moment of a fork.
static CURRENT: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// This process's runtime.
///
/// # Errors
/// [`Error::Overloaded`] when no thread can be started.
pub(crate) fn runtime(_py: Python<'_>) -> Result<&'static Runtime, Error> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    match *current {
        Some((process, runtime)) if process == here => Ok(runtime),
        _ => {
            let runtime: &'static Runtime = Box::leak(Box::new(quorate_client::runtime::runtime()?));
            *current = Some((here, runtime));
            Ok(runtime)
        }
    }
}

/// Drives an operation to its end on this thread, with the interpreter released; Ctrl-C interrupts it. Raises the error of
/// an operation that could not be made.
pub(crate) fn wait<F, T>(py: Python<'_>, operation: Result<F, Error>) -> PyResult<T>
where
    F: Future<Output = Result<T, Error>> + Send,
    T: Send,
{
    let begun = operation.and_then(|operation| Ok((runtime(py)?, operation)));
    let (runtime, operation) = begun.map_err(|error| exception(py, error))?;
    let mut operation = pin!(guarded(operation));
    let patience = is_main_thread(py)?.then_some(SIGNAL_CHECK);
    loop {
        let operation = operation.as_mut();
        let answer = py.detach(|| {
            runtime.block_on(async {
                match patience {
                    Some(patience) => tokio::time::timeout(patience, operation).await.ok(),
                    None => Some(operation.await),
                }
            })
        });
        match answer {
            Some(answer) => return answer.map_err(|error| exception(py, error)),
            None => py.check_signals()?,
        }
    }
}

/// The same operation, with an error instead of a panic; whether it had an effect is unknown.
pub(crate) async fn guarded<T>(operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut operation = pin!(operation);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            Poll::Ready(Err(Error::OutcomeUnknown {
                acked: 0,
                required: 1,
                reason: Some("the client panicked".to_owned()),
            }))
        })
    })
    .await
}

/// Whether this is the thread that Python runs signal handlers on; no other can be interrupted.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    thread_local! {
        /// Valid in this process: in a forked child, the thread that forked is the main thread.
        static KNOWN: Cell<Option<(u32, bool)>> = const { Cell::new(None) };
    }
    let here = std::process::id();
    if let Some((process, main)) = KNOWN.get()
        && process == here
    {
        return Ok(main);
    }
    let threading = py.import("threading")?;
    let current = threading.call_method0("get_ident")?;
    let main = current.eq(threading.call_method0("main_thread")?.getattr("ident")?)?;
    KNOWN.set(Some((here, main)));
    Ok(main)
}
