//! One call of the client: blocked on, awaited in asyncio's event loop, or dropped. It is made once for both.
//!
//! A call is a Rust future. The thread that waits for it drives the client ([`quorate_client::shell::Driver`]): a thread that
//! blocks does so in [`PendingCall::wait`], with the interpreter released; an event loop does so in [`crate::asyncio`]. That
//! thread also converts the answer into a Python object.
//!
//! **No native thread touches Python.** One that does so while the interpreter ends aborts the process: it attaches to what is
//! being destroyed. So this crate spawns nothing, and never calls `Python::attach` (`clippy.toml` forbids both).
//!
//! Threads of Python that block here are daemon threads when the interpreter ends. They come back to it with an answer only,
//! and pyo3 then suspends them forever.

use std::cell::Cell;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use quorate_client::shell::{Driver, block_on};
use quorate_core::error::Error;

use crate::errors::exception;
use crate::process::OfProcess;
use crate::running::{Begun, running};

/// How often a blocked call looks whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// A call of the client: `wait()` for it, or `await` it. It starts then.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct PendingCall(Mutex<Option<OfProcess<Begun>>>);

/// Makes a call; raises the error of one that could not be made.
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
    let begun = Begun {
        call: running(operation),
        driver: driver.cloned(),
    };
    Ok(PendingCall(Mutex::new(Some(OfProcess::new(begun)))))
}

#[pymethods]
impl PendingCall {
    /// Carry the call out, and return or raise its outcome. Ctrl-C interrupts it.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Begun { call, driver } = self.begin(py)?;
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

    /// Carry the call out in the running event loop. Only a generator is made here: Python runs it.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static AWAITED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        AWAITED.import(py, "quorate.executor", "awaited")?.call1((slf,))
    }
}

impl PendingCall {
    pub(crate) fn begin(&self, py: Python<'_>) -> PyResult<Begun> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        begun
            .ok_or_else(|| Error::invalid("this call was carried out already: make it again"))
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
