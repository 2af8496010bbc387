//! What a reader has seen, handed back to the put that replaces it: opaque to Python but readable as a map.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_core::error::Error;
use quorate_versions as versions;

use crate::errors::exception;

/// What a reader has seen of a key: give it to the put that is to replace that.
///
/// `a <= b` says that b has seen everything that a has; two contexts may be neither, and those of two keys always are.
#[pyclass(frozen, module = "quorate._quorate", name = "Context")]
pub(crate) struct Context(pub(crate) versions::Context);

#[pymethods]
impl Context {
    /// The version vector as a map: how many writes of each replica are included.
    #[getter]
    fn version(&self) -> BTreeMap<String, u64> {
        self.0.readable()
    }

    /// Read what `bytes(context)` wrote.
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read = |bytes| versions::Context::decode(bytes).ok();
        match data.extract::<&[u8]>().ok().and_then(read) {
            Some(context) => Ok(Context(context)),
            None => Err(exception(
                data.py(),
                Error::invalid("this is not a context: give what bytes(entry.context) wrote"),
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

    /// Whether anything was seen at all.
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
