//! A call that is being carried out: a future that makes a Python object of its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use quorate_client::shell::Driver;
use quorate_core::error::Error;

use crate::errors::exception;

/// Converts a result into a Python object, on the thread that waited for it.
pub(crate) type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// A call that goes on whenever it is polled.
pub(crate) type Running = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A call that was not begun, and the driver of the client that it is one of, if it is.
pub(crate) struct Begun {
    pub(crate) call: Running,
    pub(crate) driver: Option<Driver>,
}

/// A call of this operation. A panic is an error of it.
pub(crate) fn running<F, T>(operation: F) -> Running
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

/// The same operation, with an error instead of a panic; whether it had an effect is unknown.
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
