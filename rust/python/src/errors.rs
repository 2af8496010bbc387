//! From the protocol's errors to the exceptions of `quorate.errors`: one class per variant, with the same name.
//!
//! The match below is exhaustive on purpose: a new variant does not compile until it has its exception.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use quorate_core::error::Error;

/// The exception for an error of the protocol, or for one that becomes such an error.
pub(crate) fn exception(py: Python<'_>, error: impl Into<Error>) -> PyErr {
    instance(py, &error.into()).map_or_else(|broken| broken, PyErr::from_value)
}

/// The same as an object, to be returned and not raised.
pub(crate) fn instance<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let class = py.import("quorate.errors")?.getattr(error.name())?;
    class.call((error.to_string(),), Some(&fields(py, error)?))
}

fn fields<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
    match error {
        Error::Unavailable {
            required,
            alive,
            reason: _,
        } => [("required", required), ("alive", alive)].into_py_dict(py),
        Error::OutcomeUnknown {
            acked,
            required,
            reason: _,
        } => [("acked", acked), ("required", required)].into_py_dict(py),
        Error::ReadTimeout { answered, required } => {
            [("answered", answered), ("required", required)].into_py_dict(py)
        }
        Error::LimitExceeded {
            what,
            size,
            limit,
            remedy: _,
        } => {
            let fields = [("size", size), ("limit", limit)].into_py_dict(py)?;
            fields.set_item("what", what)?;
            Ok(fields)
        }
        Error::ConditionFailed { key, current } => {
            let fields = PyDict::new(py);
            fields.set_item("key", key)?;
            fields.set_item("current", current.unwrap_or(0))?;
            Ok(fields)
        }
        Error::Overloaded(_)
        | Error::SessionExpired(_)
        | Error::PermissionDenied(_)
        | Error::ConnectionRefused(_)
        | Error::InvalidArgument(_)
        | Error::NotFound(_)
        | Error::KeyspaceExists(_)
        | Error::StorageFull(_)
        | Error::CorruptRecord(_)
        | Error::ConnectionLost(_)
        | Error::Refused(_)
        | Error::Closed(_) => Ok(PyDict::new(py)),
    }
}
