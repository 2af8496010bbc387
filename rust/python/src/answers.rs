//! What operations answer, as Python sees it before `quorate.entries` makes results of it.

use bytes::Bytes;
use pyo3::BoundObject;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api;
use quorate_versions as versions;

use crate::context::Context;
use crate::errors::instance;

/// How an operation went, whatever it was.
#[derive(Clone, Copy)]
pub(crate) struct Course {
    /// From submission to answer.
    pub(crate) seconds: f64,
    /// When it was sampled.
    pub(crate) trace_id: Option<u128>,
}

/// One of a key's values.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawVersion {
    value: Bytes,
    #[pyo3(get)]
    micros: u64,
    #[pyo3(get)]
    node: u16,
    #[pyo3(get)]
    counter: u64,
}

#[pymethods]
impl RawVersion {
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.value)
    }
}

/// A key as a read saw it.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawEntry {
    versions: Vec<api::Version>,
    context: versions::Context,
    answered: Vec<NodeId>,
    coordinator: NodeId,
    level: Level,
    course: Course,
}

impl RawEntry {
    pub(crate) fn new(entry: api::Entry, course: Course) -> Self {
        RawEntry {
            versions: entry.versions,
            context: entry.context,
            answered: entry.answered,
            coordinator: entry.coordinator,
            level: entry.level,
            course,
        }
    }
}

#[pymethods]
impl RawEntry {
    #[getter]
    fn versions(&self) -> Vec<RawVersion> {
        let raw = |version: &api::Version| RawVersion {
            value: version.value.clone(),
            micros: version.timestamp.wall.0,
            node: version.dot.replica.node().0,
            counter: version.dot.counter,
        };
        self.versions.iter().map(raw).collect()
    }

    #[getter]
    fn context(&self) -> Context {
        Context(self.context.clone())
    }

    #[getter]
    fn answered(&self) -> Vec<u16> {
        self.answered.iter().map(|node| node.0).collect()
    }

    #[getter]
    fn coordinator(&self) -> u16 {
        self.coordinator.0
    }

    #[getter]
    fn level(&self) -> String {
        self.level.to_string()
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.course.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.course.trace_id
    }
}

/// A write that reached its level.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawWrite {
    written: api::Written,
    course: Course,
}

impl RawWrite {
    pub(crate) fn new(written: api::Written, course: Course) -> Self {
        RawWrite { written, course }
    }
}

#[pymethods]
impl RawWrite {
    #[getter]
    fn micros(&self) -> u64 {
        self.written.timestamp.wall.0
    }

    #[getter]
    fn context(&self) -> Context {
        Context(self.written.context.clone())
    }

    #[getter]
    fn acked(&self) -> Vec<u16> {
        self.written.acked.iter().map(|node| node.0).collect()
    }

    #[getter]
    fn coordinator(&self) -> u16 {
        self.written.coordinator.0
    }

    #[getter]
    fn level(&self) -> String {
        self.written.level.to_string()
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.course.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.course.trace_id
    }
}

/// Part of a scan, before Python has it.
pub(crate) struct Page {
    pub(crate) page: api::Page,
    pub(crate) course: Course,
}

impl<'py> IntoPyObject<'py> for Page {
    type Target = RawPage;
    type Output = Bound<'py, RawPage>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, RawPage>> {
        let raw = |(key, entry): (Key, api::Entry)| {
            let entry = Py::new(py, RawEntry::new(entry, self.course))?;
            Ok((key.partition().clone(), entry))
        };
        let page = RawPage {
            entries: self.page.entries.into_iter().map(raw).collect::<PyResult<_>>()?,
            next: self.page.next.map(|key| key.partition().clone()),
        };
        Bound::new(py, page)
    }
}

/// Part of a scan.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawPage {
    entries: Vec<(Bytes, Py<RawEntry>)>,
    next: Option<Bytes>,
}

#[pymethods]
impl RawPage {
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Py<RawEntry>)> {
        self.entries
            .iter()
            .map(|(key, entry)| (PyBytes::new(py, key), entry.clone_ref(py)))
            .collect()
    }

    #[getter]
    fn next<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.next.as_ref().map(|key| PyBytes::new(py, key))
    }
}

/// What became of one operation of many: its answer, or its error as an object that is not raised.
pub(crate) struct Each<T>(pub(crate) Result<T, Error>);

impl<'py, T> IntoPyObject<'py> for Each<T>
where
    T: IntoPyObject<'py>,
{
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0 {
            Ok(answer) => {
                let object = answer.into_pyobject(py).map_err(Into::into)?;
                Ok(object.into_bound().into_any())
            }
            Err(error) => instance(py, &error),
        }
    }
}
