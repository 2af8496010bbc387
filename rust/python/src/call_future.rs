//! A call as a future whose result is converted to a Python object.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use quorate_client::shell::Driver;
use quorate_core::error::Error;

use crate::errors::exception;

/// Converts a result to a Python object, on the thread that waited for it.
pub(crate) type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The future of a call.
pub(crate) type CallFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A call, and the driver of its client, if it has one.
pub(crate) struct Started {
    pub(crate) call: CallFuture,
    pub(crate) driver: Option<Driver>,
}

/// The future of an operation. A panic becomes its error.
pub(crate) fn call_future<F, T>(operation: F) -> CallFuture
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    Box::pin(async move {
        let outcome = guarded(operation).await;
        Box::new(move |py: Python<'_>| {
            let answer = outcome.map_err(|error| exception(py, error))?;
            answer.into_py_any(py)
        }) as Answer
    })
}

/// The same operation, with an error instead of a panic; its outcome is unknown.
async fn guarded<T>(operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
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
