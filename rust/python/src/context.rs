//! The context of a read, which is passed to the put that replaces its versions: opaque to Python but readable as a map.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_core::error::Error;
use quorate_versions as versions;

use crate::errors::exception;

/// The versions of a key that a read has seen: pass it to the put that replaces them.
///
/// `a <= b` means that b includes all versions of a; contexts may be incomparable, and those of different keys always are.
#[pyclass(frozen, module = "quorate._quorate", name = "Context")]
pub(crate) struct Context(pub(crate) versions::Context);

#[pymethods]
impl Context {
    /// The version vector as a map: the number of included writes by replica.
    #[getter]
    fn version(&self) -> BTreeMap<String, u64> {
        self.0.readable()
    }

    /// Decode the result of `bytes(context)`.
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read = |bytes| versions::Context::decode(bytes).ok();
        match data.extract::<&[u8]>().ok().and_then(read) {
            Some(context) => Ok(Context(context)),
            None => Err(exception(
                data.py(),
                Error::invalid("this is not a context: pass the result of bytes(entry.context)"),
            )),
        }
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.encode())
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Context>() else {
            return Ok(py.NotImplemented());
        };
        let (mine, theirs) = (&self.0, &other.get().0);
        let answer = match op {
            CompareOp::Eq => mine == theirs,
            CompareOp::Ne => mine != theirs,
            CompareOp::Le => theirs.dominates(mine),
            CompareOp::Lt => theirs.dominates(mine) && mine != theirs,
            CompareOp::Ge => mine.dominates(theirs),
            CompareOp::Gt => mine.dominates(theirs) && mine != theirs,
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether it includes any version.
    fn __bool__(&self) -> bool {
        !self.0.is_empty()
    }

    fn __repr__(&self) -> String {
        format!("<Context {{{}}}>", *self.0)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let rebuild = py.get_type::<Context>().getattr("from_bytes")?;
        Ok((rebuild, (self.__bytes__(py),)))
    }
}
