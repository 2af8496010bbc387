//! Results of operations in consensus keyspaces, which `quorate.consensus_answers` wraps.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::{RecordPage, Reply};
use quorate_core::key::Key;
use quorate_protocol::api::{Committed, LogEntry, Record, View};

use crate::answers::Timing;
use crate::requests::{KeyParts, key_parts};

/// The result of a committed command.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawCommit {
    shard: usize,
    committed: Committed,
    timing: Timing,
}

impl RawCommit {
    pub(crate) fn new(shard: usize, reply: Reply<Committed>) -> Self {
        let timing = Timing::from(&reply);
        RawCommit {
            shard,
            committed: reply.value,
            timing,
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
        self.timing.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.timing.trace_id
    }
}

/// The result of a read.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawRecord {
    pub(crate) record: Option<Record>,
    pub(crate) view: View,
    pub(crate) timing: Timing,
}

impl RawRecord {
    pub(crate) fn of(reply: Reply<(Option<Record>, View)>) -> Self {
        let timing = Timing::from(&reply);
        let (record, view) = reply.value;
        RawRecord { record, view, timing }
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
        self.timing.seconds
    }

    #[getter]
    fn trace_id(&self) -> Option<u128> {
        self.timing.trace_id
    }
}

/// A page of a scan, before its conversion.
pub(crate) struct Records(pub(crate) Reply<RecordPage>);

impl<'py> IntoPyObject<'py> for Records {
    type Target = RawRecordPage;
    type Output = Bound<'py, RawRecordPage>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, RawRecordPage>> {
        let timing = Timing::from(&self.0);
        let raw = |(key, record, view): (Key, Record, View)| {
            let raw = RawRecord {
                record: Some(record),
                view,
                timing,
            };
            Ok((key, Py::new(py, raw)?))
        };
        let RecordPage { entries, next } = self.0.value;
        let page = RawRecordPage {
            entries: entries.into_iter().map(raw).collect::<PyResult<_>>()?,
            next,
        };
        Bound::new(py, page)
    }
}

/// A page of a scan.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct RawRecordPage {
    entries: Vec<(Key, Py<RawRecord>)>,
    next: Option<Key>,
}

#[pymethods]
impl RawRecordPage {
    /// The partition and the sort part of each key, and its record.
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<(KeyParts<'py>, Py<RawRecord>)> {
        self.entries
            .iter()
            .map(|(key, record)| (key_parts(py, key), record.clone_ref(py)))
            .collect()
    }

    #[getter]
    fn next<'py>(&self, py: Python<'py>) -> Option<KeyParts<'py>> {
        self.next.as_ref().map(|key| key_parts(py, key))
    }
}

/// A page of a shard's log of entries.
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
