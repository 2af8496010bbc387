//! Results of operations in quorum keyspaces, which `quorate.quorum_answers` wraps.

use bytes::Bytes;
use pyo3::BoundObject;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::Reply;
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api;

use crate::context::Context;
use crate::errors::instance;
use crate::requests::{KeyParts, key_parts};

/// The latency of an operation, and its trace.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    /// From submission to response.
    pub(crate) seconds: f64,
    /// If it was sampled.
    pub(crate) trace_id: Option<u128>,
}

impl<T> From<&Reply<T>> for Timing {
    fn from(reply: &Reply<T>) -> Self {
        Timing {
            seconds: reply.elapsed.as_secs_f64(),
            trace_id: reply.trace_id,
        }
    }
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

/// The result of a read.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawEntry {
    entry: api::Entry,
    timing: Timing,
}

impl RawEntry {
    pub(crate) fn of(reply: Reply<api::Entry>) -> Self {
        let timing = Timing::from(&reply);
        RawEntry {
            entry: reply.value,
            timing,
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
        self.entry.versions.iter().map(raw).collect()
    }

    #[getter]
    fn values<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let versions = self.entry.versions.iter();
        versions.map(|version| PyBytes::new(py, &version.value)).collect()
    }

    #[getter]
    fn context(&self) -> Context {
        Context(self.entry.context.clone())
    }

    #[getter]
    fn answered(&self) -> Vec<u16> {
        self.entry.answered.iter().map(|node| node.0).collect()
    }

    #[getter]
    fn coordinator(&self) -> u16 {
        self.entry.coordinator.0
    }

    #[getter]
    fn level(&self) -> LevelName {
        level_name(self.entry.level)
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.timing.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.timing.trace_id
    }
}

/// The result of a write that reached its level.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawWrite {
    written: api::Written,
    timing: Timing,
}

impl RawWrite {
    pub(crate) fn of(reply: Reply<api::Written>) -> Self {
        let timing = Timing::from(&reply);
        RawWrite {
            written: reply.value,
            timing,
        }
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
    fn level(&self) -> LevelName {
        level_name(self.written.level)
    }

    #[getter]
    fn seconds(&self) -> f64 {
        self.timing.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.timing.trace_id
    }
}

/// A level in Python's form.
#[derive(IntoPyObject)]
pub(crate) enum LevelName {
    /// One of the named levels.
    Name(&'static str),
    /// A number of replicas.
    Count(u8),
}

fn level_name(level: Level) -> LevelName {
    match level {
        Level::One => LevelName::Name("ONE"),
        Level::Two => LevelName::Name("TWO"),
        Level::Three => LevelName::Name("THREE"),
        Level::Quorum => LevelName::Name("QUORUM"),
        Level::All => LevelName::Name("ALL"),
        Level::Count(count) => LevelName::Count(count),
    }
}

/// A page of a scan, before its conversion.
pub(crate) struct Page(pub(crate) Reply<api::Page>);

impl<'py> IntoPyObject<'py> for Page {
    type Target = RawPage;
    type Output = Bound<'py, RawPage>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, RawPage>> {
        let timing = Timing::from(&self.0);
        let raw = |(key, entry): (Key, api::Entry)| Ok((key, Py::new(py, RawEntry { entry, timing })?));
        let api::Page { entries, next, .. } = self.0.value;
        let entries = entries.into_iter().map(raw).collect::<PyResult<_>>()?;
        Bound::new(py, RawPage { entries, next })
    }
}

/// A page of a scan.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawPage {
    entries: Vec<(Key, Py<RawEntry>)>,
    next: Option<Key>,
}

#[pymethods]
impl RawPage {
    /// The partition and the sort part of each key, and its entry.
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<(KeyParts<'py>, Py<RawEntry>)> {
        self.entries
            .iter()
            .map(|(key, entry)| (key_parts(py, key), entry.clone_ref(py)))
            .collect()
    }

    #[getter]
    fn next<'py>(&self, py: Python<'py>) -> Option<KeyParts<'py>> {
        self.next.as_ref().map(|key| key_parts(py, key))
    }
}

/// The outcome of one item of a batch: its result, or its error as an object that is not raised.
pub(crate) struct ItemResult<T>(pub(crate) Result<T, Error>);

impl<'py, T> IntoPyObject<'py> for ItemResult<T>
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
