//! Conversion of Python arguments to requests of the protocol.

use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use quorate_client::{CallOptions, ScanRange};
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::Request;
use quorate_versions::WriteId;

use crate::documents::read;

/// The options of requests about the cluster, which are never traced.
pub(crate) fn plain(timeout: f64) -> CallOptions {
    CallOptions::timeout(duration(timeout))
}

/// Invalid durations were rejected in Python; the maximum is a day.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

/// A key: bytes, or a pair of a partition and a sort part (or `None`).
///
/// # Errors
/// [`Error::InvalidArgument`] and [`Error::LimitExceeded`] for an invalid key.
pub(crate) fn key_of(key: &Bound<'_, PyAny>) -> Result<Key, Error> {
    if let Ok(partition) = key.cast::<PyBytes>() {
        return Ok(Key::of(Bytes::copy_from_slice(partition.as_bytes()))?);
    }
    let (partition, sort): (Vec<u8>, Option<Vec<u8>>) = key
        .extract()
        .map_err(|_| Error::invalid("a key is bytes, or a pair of a partition and a sort part"))?;
    Ok(Key::new(partition, sort.map(Bytes::from))?)
}

/// A key in Python's form: the pair that [`key_of`] accepts.
pub(crate) fn key_parts<'py>(py: Python<'py>, key: &Key) -> KeyParts<'py> {
    let sort = key.sort().map(|sort| PyBytes::new(py, sort));
    (PyBytes::new(py, key.partition()), sort)
}

/// A partition, and a sort part if the key has one.
pub(crate) type KeyParts<'py> = (Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>);

/// A level: its name, or a number of replicas.
///
/// # Errors
/// [`Error::InvalidArgument`] for any other value.
pub(crate) fn level_of(level: Option<&Bound<'_, PyAny>>) -> Result<Option<Level>, Error> {
    let Some(level) = level else { return Ok(None) };
    if let Ok(count) = level.extract::<u8>() {
        return Ok(Some(Level::Count(count)));
    }
    let name = level
        .cast::<PyString>()
        .map_err(|_| Error::invalid("a level is a name or a number"))?;
    let name = name
        .to_str()
        .map_err(|_| Error::invalid("a level's name is text"))?;
    name.parse().map(Some)
}

/// The range of a scan. `start` may be the `next` of a page.
///
/// # Errors
/// Like [`key_of`].
pub(crate) fn range_of(
    start: Option<&Bound<'_, PyAny>>,
    end: Option<&[u8]>,
    after_start: bool,
    limit: u32,
) -> Result<ScanRange, Error> {
    // No key is empty: an empty start is the beginning, and nothing is below an empty end.
    let empty = |start: &&Bound<'_, PyAny>| {
        start
            .cast::<PyBytes>()
            .is_ok_and(|start| start.as_bytes().is_empty())
    };
    let start = start.filter(|start| !empty(start)).map(key_of).transpose()?;
    let end = end.map(|end| Key::of(Bytes::copy_from_slice(end))).transpose()?;
    Ok(ScanRange {
        start,
        end,
        after_start,
        page: limit,
    })
}

/// The request to create a keyspace, from its settings.
pub(crate) fn create_request(settings: &Bound<'_, PyAny>) -> Result<Request, Error> {
    read(settings, "a keyspace's settings").map(Request::CreateKeyspace)
}

/// The request to alter a keyspace, from the changed settings.
pub(crate) fn alter_request(name: &str, change: &Bound<'_, PyAny>) -> Result<Request, Error> {
    let change = read(change, "a change of a keyspace's settings")?;
    Ok(Request::AlterKeyspace {
        name: name.to_owned(),
        change,
        write_id: WriteId::default(),
    })
}

/// The request to drop a keyspace.
pub(crate) fn drop_request(name: &str) -> Request {
    Request::DropKeyspace {
        name: name.to_owned(),
        write_id: WriteId::default(),
    }
}

/// The request to change a node's faults; without a change, to list them.
pub(crate) fn faults_request(change: Option<&Bound<'_, PyAny>>) -> Result<Request, Error> {
    match change {
        None => Ok(Request::Faults),
        Some(change) => read(change, "a change of faults").map(Request::ChangeFaults),
    }
}

/// A request to single nodes, by name.
pub(crate) fn node_request(what: &str, argument: u128) -> Result<Request, Error> {
    match what {
        "status" => Ok(Request::Status),
        "events" => Ok(Request::Events {
            after: argument as u64,
        }),
        "spans" => Ok(Request::Spans { trace_id: argument }),
        "metrics" => Ok(Request::Metrics),
        "groups" => Ok(Request::Groups),
        _ => Err(Error::invalid(format!(
            "unknown request {what:?}: use status, events, spans, metrics or groups"
        ))),
    }
}
