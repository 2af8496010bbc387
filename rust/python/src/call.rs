//! One call of the client: blocked on, awaited in asyncio's event loop, or dropped. Both clients use it.
//!
//! A call is a Rust future. The thread that waits for it drives the client ([`quorate_client::shell::Driver`]): a
//! blocking thread in [`PendingCall::wait`], with the interpreter released; an event loop in [`crate::asyncio`]. That
//! thread also converts the result to a Python object.
//!
//! **No native thread touches Python.** One that does so while the interpreter shuts down aborts the process: it
//! attaches to an interpreter that is being destroyed. So this crate spawns nothing, and never calls `Python::attach`
//! (`clippy.toml` forbids both).
//!
//! Python threads that block here are daemon threads when the interpreter shuts down. They return to it only with a
//! result, and pyo3 then suspends them forever.

use std::cell::Cell;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use quorate_client::shell::{Driver, block_on};
use quorate_core::error::Error;

use crate::call_future::{Started, call_future};
use crate::errors::exception;
use crate::process::OfProcess;

/// How often a blocked call checks for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// A call of the client: `wait()` for it, or `await` it, which starts it.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct PendingCall(Mutex<Option<OfProcess<Started>>>);

/// Creates a call; raises the error of an invalid one.
pub(crate) fn pending<F, T>(
    py: Python<'_>,
    driver: Option<&Driver>,
    operation: Result<F, Error>,
) -> PyResult<PendingCall>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    let operation = operation.map_err(|error| exception(py, error))?;
    let started = Started {
        call: call_future(operation),
        driver: driver.cloned(),
    };
    Ok(PendingCall(Mutex::new(Some(OfProcess::new(started)))))
}

#[pymethods]
impl PendingCall {
    /// Execute the call, and return its result or raise its error. Ctrl-C interrupts it.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Started { call, driver } = self.begin(py)?;
        let patience = is_main_thread(py)?.then_some(SIGNAL_CHECK);
        let mut call = pin!(call);
        loop {
            let call = call.as_mut();
            let answer = py.detach(|| match &driver {
                Some(driver) => driver.block_on(call, patience),
                None => block_on(call, patience),
            });
            match answer {
                Some(answer) => return answer(py),
                None => py.check_signals()?,
            }
        }
    }

    /// Execute the call in the running event loop. Only creates a generator, which Python runs.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static AWAITED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        AWAITED.import(py, "quorate.executor", "awaited")?.call1((slf,))
    }
}

impl PendingCall {
    pub(crate) fn begin(&self, py: Python<'_>) -> PyResult<Started> {
        let started = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        started
            .ok_or_else(|| Error::invalid("this call was already executed: create another one"))
            .and_then(OfProcess::take)
            .map_err(|error| exception(py, error))
    }
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
