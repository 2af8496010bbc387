//! The calls of an event loop, driven by the loop's own thread.
//!
//! An operation is a Rust future. `quorate.executor` passes it to the [`Executor`] of the running loop, which polls it at
//! once: the request leaves. When the answer arrives, a thread of the runtime wakes the future. Waking adds the call's number
//! to a list; if the list was empty, it also writes a byte to a socket that the loop watches. The loop then drains the
//! executor: it polls the calls that were woken and converts all results into Python objects. No other thread ever holds
//! anything of Python, and a cancelled call is dropped on the loop's thread.
//!
//! Locks: `calls` is taken only by threads that hold the interpreter, and released before Python code can run, because
//! that code may use the executor (a coroutine that the garbage collector closes cancels its call). `numbers` is taken by
//! any thread, for an instant.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use quorate_core::error::Error;
use tokio::runtime::Runtime;

use crate::errors::exception;
use crate::process::OfProcess;
use crate::runtime::{guarded, runtime};

/// Converts a result into a Python object; called by the thread of the loop.
type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// A call that has finished: its number, and its answer or its error.
type Drained = (u64, Option<Py<PyAny>>, Option<Py<PyBaseException>>);

/// An operation of any kind.
type Operation = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An operation to be awaited; it starts when it is awaited.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct PendingCall(Mutex<Option<OfProcess<Operation>>>);

/// Makes an operation awaitable; raises the error of one that could not be made.
pub(crate) fn pending<F, T>(py: Python<'_>, operation: Result<F, Error>) -> PyResult<PendingCall>
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    let operation = operation.map_err(|error| exception(py, error))?;
    let operation = Box::pin(async move {
        let outcome = guarded(operation).await;
        Box::new(move |py: Python<'_>| convert(py, outcome)) as Answer
    });
    Ok(PendingCall(Mutex::new(Some(OfProcess::new(operation)))))
}

fn convert<T>(py: Python<'_>, outcome: Result<T, Error>) -> PyResult<Py<PyAny>>
where
    T: for<'py> IntoPyObject<'py>,
{
    let answer = outcome.map_err(|error| exception(py, error))?;
    answer.into_py_any(py)
}

#[pymethods]
impl PendingCall {
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static RUN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let run = RUN.import(py, "quorate.executor", "run")?.call1((slf,))?;
        run.call_method0(pyo3::intern!(py, "__await__"))
    }
}

/// The calls of one event loop.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Executor(OfProcess<Inner>);

struct Inner {
    runtime: &'static Runtime,
    calls: Mutex<Calls>,
    wakeups: Arc<Wakeups>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    running: HashMap<u64, (Operation, Arc<CallWaker>)>,
    /// Those that were ready at once.
    finished: Vec<(u64, Answer)>,
}

#[pymethods]
impl Executor {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let made = runtime(py).and_then(Inner::new);
        let inner = made.map_err(|error| exception(py, error))?;
        Ok(Executor(OfProcess::new(inner)))
    }

    /// The descriptor that is readable when there is something to drain.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        Ok(self.here(py)?.wakeups.receiver.as_raw_fd())
    }

    /// Starts a call; returns its number.
    fn start(&self, py: Python<'_>, call: &PendingCall) -> PyResult<u64> {
        let inner = self.here(py)?;
        let operation = lock(&call.0).take();
        let started = operation
            .ok_or_else(|| Error::invalid("this call was awaited already: make it again"))
            .and_then(OfProcess::take)
            .map(|operation| inner.start(operation));
        started.map_err(|error| exception(py, error))
    }

    /// Takes the calls that have finished: the number of each, and its answer or its error.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<Drained>> {
        let finished = self.here(py)?.poll();
        let outcome = |(number, answer): (u64, Answer)| match answer(py) {
            Ok(answer) => (number, Some(answer), None),
            Err(error) => (number, None, Some(error.into_value(py))),
        };
        Ok(finished.into_iter().map(outcome).collect())
    }

    /// Drops a call that has not finished. A node may still execute its request.
    fn cancel(&self, number: u64) {
        // A forked child has no calls.
        if let Ok(inner) = self.0.here() {
            lock(&inner.calls).running.remove(&number);
        }
    }
}

impl Executor {
    fn here(&self, py: Python<'_>) -> PyResult<&Inner> {
        self.0.here().map_err(|error| exception(py, error))
    }
}

impl Inner {
    fn new(runtime: &'static Runtime) -> Result<Self, Error> {
        Ok(Inner {
            runtime,
            calls: Mutex::default(),
            wakeups: Arc::new(Wakeups::new()?),
        })
    }

    fn start(&self, mut operation: Operation) -> u64 {
        let mut calls = lock(&self.calls);
        calls.last += 1;
        let number = calls.last;
        let waker = Arc::new(CallWaker {
            number,
            woken: AtomicBool::new(false),
            wakeups: Arc::clone(&self.wakeups),
        });
        let _inside = self.runtime.enter();
        match waker.poll(&mut operation) {
            Poll::Pending => {
                calls.running.insert(number, (operation, waker));
            }
            Poll::Ready(answer) => {
                calls.finished.push((number, answer));
                self.wakeups.push(number);
            }
        }
        number
    }

    /// Polls the calls that were woken; returns those that have finished.
    fn poll(&self) -> Vec<(u64, Answer)> {
        let woken = self.wakeups.take();
        let mut calls = lock(&self.calls);
        let mut finished = std::mem::take(&mut calls.finished);
        let _inside = self.runtime.enter();
        for number in woken {
            // Cancelled calls are gone.
            let Some((operation, waker)) = calls.running.get_mut(&number) else {
                continue;
            };
            if let Poll::Ready(answer) = waker.poll(operation) {
                calls.running.remove(&number);
                finished.push((number, answer));
            }
        }
        finished
    }
}

/// Wakes one call.
struct CallWaker {
    number: u64,
    /// Whether the call is in the list already.
    woken: AtomicBool,
    wakeups: Arc<Wakeups>,
}

impl CallWaker {
    fn poll(self: &Arc<Self>, operation: &mut Operation) -> Poll<Answer> {
        // Before the poll, so that what arrives during it wakes the call again.
        self.woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(self));
        operation.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.wakeups.push(self.number);
        }
    }
}

/// The calls that were woken since the last drain, and the socket that wakes the loop.
struct Wakeups {
    numbers: Mutex<Vec<u64>>,
    // Both ends live until the last waker is dropped, so that no write raises SIGPIPE.
    receiver: UnixStream,
    sender: UnixStream,
}

impl Wakeups {
    fn new() -> Result<Self, Error> {
        let ends = || {
            let (receiver, sender) = UnixStream::pair()?;
            receiver.set_nonblocking(true)?;
            sender.set_nonblocking(true)?;
            Ok((receiver, sender))
        };
        let (receiver, sender) = ends().map_err(|error: std::io::Error| {
            Error::Overloaded(format!(
                "cannot create the socket that wakes the event loop: {error}"
            ))
        })?;
        Ok(Wakeups {
            numbers: Mutex::default(),
            receiver,
            sender,
        })
    }

    fn push(&self, number: u64) {
        let first = {
            let mut numbers = lock(&self.numbers);
            numbers.push(number);
            numbers.len() == 1
        };
        if first {
            // A full socket wakes the loop as well.
            let _full = (&self.sender).write(&[1]);
        }
    }

    /// Takes the numbers. The socket is read first: a push after that writes again.
    fn take(&self) -> Vec<u64> {
        let mut bytes = [0; 64];
        loop {
            match (&self.receiver).read(&mut bytes) {
                Ok(read) if read == bytes.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        std::mem::take(&mut lock(&self.numbers))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
