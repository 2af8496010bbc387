//! What consensus keyspaces answer, as Python sees it before `quorate.sharding` makes results of it.

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::{RecordPage, Reply};
use quorate_core::key::Key;
use quorate_protocol::api::{Committed, LogEntry, Record, View};

use crate::answers::Course;

pub(crate) fn course<T>(reply: &Reply<T>) -> Course {
    Course {
        seconds: reply.elapsed.as_secs_f64(),
        trace_id: reply.trace_id,
    }
}

/// A command that was executed.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawCommit {
    shard: usize,
    committed: Committed,
    course: Course,
}

impl RawCommit {
    pub(crate) fn new(shard: usize, reply: Reply<Committed>) -> Self {
        RawCommit {
            shard,
            committed: reply.value,
            course: course(&reply),
        }
    }
}

#[pymethods]
impl RawCommit {
    #[getter]
    fn shard(&self) -> usize {
        self.shard
    }

    #[getter]
    fn index(&self) -> u64 {
        self.committed.index
    }

    #[getter]
    fn term(&self) -> u64 {
        self.committed.term
    }

    #[getter]
    fn leader(&self) -> u16 {
        self.committed.leader.0
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

/// A key as a read saw it.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawRecord {
    pub(crate) record: Option<Record>,
    pub(crate) view: View,
    pub(crate) course: Course,
}

impl RawRecord {
    pub(crate) fn of(reply: Reply<(Option<Record>, View)>) -> Self {
        let course = course(&reply);
        let (record, view) = reply.value;
        RawRecord { record, view, course }
    }
}

#[pymethods]
impl RawRecord {
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.record.as_ref().map(|record| PyBytes::new(py, &record.value))
    }

    #[getter]
    fn version(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.version)
    }

    #[getter]
    fn micros(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.time.0)
    }

    #[getter]
    fn node(&self) -> u16 {
        self.view.node.0
    }

    #[getter]
    fn leader(&self) -> Option<u16> {
        self.view.leader.map(|leader| leader.0)
    }

    #[getter]
    fn applied(&self) -> u64 {
        self.view.applied
    }

    #[getter]
    fn staleness(&self) -> Option<f64> {
        self.view.staleness_micros.map(|micros| micros as f64 / 1e6)
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
pub(crate) struct Records(pub(crate) Reply<RecordPage>);

impl<'py> IntoPyObject<'py> for Records {
    type Target = RawRecordPage;
    type Output = Bound<'py, RawRecordPage>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, RawRecordPage>> {
        let course = course(&self.0);
        let raw = |(key, record, view): (Key, Record, View)| {
            let raw = RawRecord {
                record: Some(record),
                view,
                course,
            };
            Ok((key.partition().clone(), Py::new(py, raw)?))
        };
        let RecordPage { entries, next } = self.0.value;
        let page = RawRecordPage {
            entries: entries.into_iter().map(raw).collect::<PyResult<_>>()?,
            next: next.map(|key| key.partition().clone()),
        };
        Bound::new(py, page)
    }
}

/// Part of a scan.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawRecordPage {
    entries: Vec<(Bytes, Py<RawRecord>)>,
    next: Option<Bytes>,
}

#[pymethods]
impl RawRecordPage {
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Py<RawRecord>)> {
        self.entries
            .iter()
            .map(|(key, record)| (PyBytes::new(py, key), record.clone_ref(py)))
            .collect()
    }

    #[getter]
    fn next<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.next.as_ref().map(|key| PyBytes::new(py, key))
    }
}

/// Part of a shard's log of entries.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawLogPage {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) next: Option<u64>,
}

#[pymethods]
impl RawLogPage {
    /// Id, term, microseconds since the epoch, source and data of each.
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<(u64, u64, u64, String, Bound<'py, PyBytes>)> {
        let raw = |entry: &LogEntry| {
            let data = PyBytes::new(py, &entry.data);
            (entry.id, entry.term, entry.time.0, entry.source.clone(), data)
        };
        self.entries.iter().map(raw).collect()
    }

    #[getter]
    fn next(&self) -> Option<u64> {
        self.next
    }
}
