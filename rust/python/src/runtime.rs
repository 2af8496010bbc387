//! The threads that clients run on, and how Python waits for them: blocking or with `await`.
//!
//! There is one runtime per process. A forked child has none of its parent's threads, so it gets a runtime of its own
//! as soon as it connects; its parent's is never touched again, not even to be dropped.

use std::cell::OnceCell;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, JoinError, Runtime, future_into_py};
use quorate_protocol::error::Error;
use tokio::runtime::{Builder, Runtime as Tokio};

use crate::errors::exception;

/// How often a blocked call looks whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// The runtime and the process that it belongs to. Locked only by threads that hold the interpreter, and so never by
/// another thread at the moment of a fork.
static CURRENT: Mutex<Option<(u32, &'static Tokio)>> = Mutex::new(None);

/// This process's runtime.
pub(crate) fn runtime(_py: Python<'_>) -> PyResult<&'static Tokio> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let here = std::process::id();
    match *current {
        Some((process, runtime)) if process == here => Ok(runtime),
        _ => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("quorate-client")
                .enable_all()
                .build()
                .map_err(|error| {
                    exception(Error::Overloaded(format!("no thread for the client: {error}")))
                })?;
            let runtime: &'static Tokio = Box::leak(Box::new(runtime));
            *current = Some((here, runtime));
            Ok(runtime)
        }
    }
}

/// Runs a future to its end with the interpreter released. Ctrl-C ends it early.
pub(crate) fn wait<F, T>(py: Python<'_>, future: F) -> PyResult<T>
where
    F: Future<Output = PyResult<T>> + Send,
    T: Send,
{
    let runtime = runtime(py)?;
    py.detach(|| {
        runtime.block_on(async {
            let mut future = std::pin::pin!(future);
            loop {
                match tokio::time::timeout(SIGNAL_CHECK, &mut future).await {
                    Ok(answer) => return answer,
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    })
}

/// Makes an awaitable of a future; cancelling it drops the future.
pub(crate) fn awaitable<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    future_into_py::<Own, _, _>(py, future)
}

/// The runtime as pyo3-async-runtimes knows it.
struct Own;

tokio::task_local! {
    static LOCALS: OnceCell<TaskLocals>;
}

/// Why a task ended without a result.
pub(crate) struct Joined(tokio::task::JoinError);

impl JoinError for Joined {
    fn is_panic(&self) -> bool {
        self.0.is_panic()
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        self.0.into_panic()
    }
}

/// A task of this runtime.
pub(crate) struct Handle(tokio::task::JoinHandle<()>);

impl Future for Handle {
    type Output = Result<(), Joined>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(Joined)
    }
}

impl Runtime for Own {
    type JoinError = Joined;
    type JoinHandle = Handle;

    fn spawn<F>(future: F) -> Handle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Handle(handle().spawn(future))
    }

    fn spawn_blocking<F>(work: F) -> Handle
    where
        F: FnOnce() + Send + 'static,
    {
        Handle(handle().spawn_blocking(work))
    }
}

impl ContextExt for Own {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(OnceCell::from(locals), future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS
            .try_with(|locals| locals.get().cloned())
            .unwrap_or_default()
    }
}

/// The runtime for a task: the one that this thread belongs to, or this process's.
fn handle() -> tokio::runtime::Handle {
    tokio::runtime::Handle::try_current().unwrap_or_else(|_| {
        Python::attach(|py| runtime(py).map(|runtime| runtime.handle().clone()))
            .unwrap_or_else(|error| panic!("a client without a runtime: {error}"))
    })
}
