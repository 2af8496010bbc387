//! The calls of an event loop of asyncio, driven by the loop's own thread.
//!
//! `quorate.executor` gives each event loop an [`Executor`], whose descriptor the loop polls. Awaiting a call starts it
//! here: it is polled once. In the same iteration of the loop, after all ready tasks, the executor runs a turn: it
//! sends the submitted requests, with one system call per connection. When responses arrive, the descriptor is
//! readable, and the next turn polls the calls that were woken and returns all results at once.
//!
//! Nothing here calls Python code. Python code may release the interpreter, and when the interpreter shuts down, a
//! daemon thread that reacquires it is terminated immediately, which no Rust frame survives.
//!
//! `calls` is locked only by threads that hold the interpreter, and released before objects of Python are made or dropped, since
//! the garbage collector may then run code that uses the executor.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use quorate_client::shell::{Driver, EventLoop};
use quorate_core::error::Error;

use crate::call::PendingCall;
use crate::call_future::{Answer, CallFuture};
use crate::errors::exception;
use crate::process::OfProcess;

/// A finished call: its number, and its result or its error.
type Finished = (u64, Option<Py<PyAny>>, Option<Py<PyBaseException>>);

/// The calls of one event loop.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Executor(OfProcess<Inner>);

struct Inner {
    event_loop: EventLoop,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    pending: HashMap<u64, (CallFuture, Waker)>,
    /// Calls that were ready at once.
    finished: Vec<(u64, Answer)>,
}

#[pymethods]
impl Executor {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let event_loop = EventLoop::new().map_err(|error| {
            let error = Error::Overloaded(format!(
                "the event loop gets no file descriptors ({error}): close files, or raise the limit (ulimit -n)"
            ));
            exception(py, error)
        })?;
        Ok(Executor(OfProcess::new(Inner {
            event_loop,
            calls: Mutex::default(),
        })))
    }

    /// The descriptor that is readable when a turn is due.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        Ok(self.here(py)?.event_loop.as_fd().as_raw_fd())
    }

    /// Start a call; returns its number. A turn is due.
    fn start(&self, py: Python<'_>, call: &PendingCall) -> PyResult<u64> {
        let inner = self.here(py)?;
        let started = call.begin(py)?;
        inner
            .attach(started.driver.as_ref())
            .map_err(|error| exception(py, error))?;
        Ok(inner.start(started.call))
    }

    /// Send and receive; returns the calls that have finished.
    fn turn(&self, py: Python<'_>) -> PyResult<Vec<Finished>> {
        let finished = self.here(py)?.turn();
        let outcome = |(number, answer): (u64, Answer)| match answer(py) {
            Ok(answer) => (number, Some(answer), None),
            Err(error) => (number, None, Some(error.into_value(py))),
        };
        Ok(finished.into_iter().map(outcome).collect())
    }

    /// Drop a call that has not finished. A node may still execute its request.
    fn cancel(&self, number: u64) {
        // A forked child has no calls.
        if let Ok(inner) = self.0.here() {
            let dropped = inner.lock().pending.remove(&number);
            drop(dropped);
        }
    }
}

impl Executor {
    fn here(&self, py: Python<'_>) -> PyResult<&Inner> {
        self.0.here().map_err(|error| exception(py, error))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, driver: Option<&Driver>) -> Result<(), Error> {
        let Some(driver) = driver else { return Ok(()) };
        self.event_loop
            .attach(driver)
            .map_err(|error| Error::Overloaded(format!("the event loop cannot watch the client: {error}")))
    }

    fn start(&self, mut call: CallFuture) -> u64 {
        let mut calls = self.lock();
        calls.last += 1;
        let number = calls.last;
        let waker = self.event_loop.waker(number);
        match poll(&mut call, &waker) {
            Poll::Ready(answer) => calls.finished.push((number, answer)),
            Poll::Pending => drop(calls.pending.insert(number, (call, waker))),
        }
        number
    }

    fn turn(&self) -> Vec<(u64, Answer)> {
        let woken = self.event_loop.turn();
        let mut calls = self.lock();
        let mut finished = std::mem::take(&mut calls.finished);
        for number in woken {
            // A call may be woken more than once, and after it was cancelled.
            let Some((call, waker)) = calls.pending.get_mut(&number) else {
                continue;
            };
            if let Poll::Ready(answer) = poll(call, waker) {
                calls.pending.remove(&number);
                finished.push((number, answer));
            }
        }
        finished
    }
}

fn poll(call: &mut CallFuture, waker: &Waker) -> Poll<Answer> {
    call.as_mut().poll(&mut Context::from_waker(waker))
}
