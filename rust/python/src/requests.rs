//! From what Python gives to what the protocol asks.

use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::CallOptions;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::Request;
use quorate_versions::WriteId;

use crate::context::Context;

/// How to carry out requests about the cluster, which are never traced.
pub(crate) fn plain(timeout: f64) -> CallOptions {
    CallOptions::timeout(duration(timeout))
}

/// What is not a duration was refused in Python; a day is as good as forever.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

/// A key.
pub(crate) fn key_of(key: &[u8]) -> Result<Key, Error> {
    Key::of(Bytes::copy_from_slice(key)).map_err(Error::from)
}

fn level_of(level: Option<&str>) -> Result<Option<Level>, Error> {
    level.map(str::parse).transpose()
}

/// A put, or a delete where there is no value.
pub(crate) fn put_request(
    keyspace: u32,
    key: &[u8],
    value: Option<&[u8]>,
    context: Option<&Bound<'_, Context>>,
    level: Option<&str>,
) -> Result<Request, Error> {
    Ok(Request::Put {
        keyspace: KeyspaceId(keyspace),
        key: key_of(key)?,
        value: value.map(Bytes::copy_from_slice),
        context: context.map(|context| context.get().0.clone()),
        level: level_of(level)?,
        // The client fills it in.
        write_id: WriteId {
            client: 0,
            sequence: 0,
        },
    })
}

/// A get.
pub(crate) fn get_request(keyspace: u32, key: &[u8], level: Option<&str>) -> Result<Request, Error> {
    Ok(Request::Get {
        keyspace: KeyspaceId(keyspace),
        key: key_of(key)?,
        level: level_of(level)?,
    })
}

/// One request for each item; what is wrong with a single key is the error of that one.
pub(crate) fn put_requests(
    keyspace: u32,
    items: &[(Bound<'_, PyBytes>, Bound<'_, PyBytes>)],
    level: Option<&str>,
) -> Result<Vec<Result<Request, Error>>, Error> {
    let level = level_of(level)?;
    let put = |(key, value): &(Bound<'_, PyBytes>, Bound<'_, PyBytes>)| {
        Ok(Request::Put {
            keyspace: KeyspaceId(keyspace),
            key: key_of(key.as_bytes())?,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            context: None,
            level,
            write_id: WriteId {
                client: 0,
                sequence: 0,
            },
        })
    };
    Ok(items.iter().map(put).collect())
}

/// As [`put_requests`].
pub(crate) fn get_requests(
    keyspace: u32,
    keys: &[Bound<'_, PyBytes>],
    level: Option<&str>,
) -> Result<Vec<Result<Request, Error>>, Error> {
    let level = level_of(level)?;
    let get = |key: &Bound<'_, PyBytes>| {
        Ok(Request::Get {
            keyspace: KeyspaceId(keyspace),
            key: key_of(key.as_bytes())?,
            level,
        })
    };
    Ok(keys.iter().map(get).collect())
}

/// One page of a scan.
pub(crate) fn scan_request(
    keyspace: u32,
    start: Option<&[u8]>,
    end: Option<&[u8]>,
    after_start: bool,
    limit: u32,
    level: Option<&str>,
) -> Result<Request, Error> {
    // No key is empty: an empty start is the beginning, and nothing is below an empty end.
    Ok(Request::Scan {
        keyspace: KeyspaceId(keyspace),
        start: start.filter(|start| !start.is_empty()).map(key_of).transpose()?,
        end: end.map(key_of).transpose()?,
        after_start,
        limit,
        level: level_of(level)?,
    })
}

/// The creation of a keyspace, from its settings as JSON.
pub(crate) fn create_request(settings: &str) -> Result<Request, Error> {
    serde_json::from_str(settings)
        .map(Request::CreateKeyspace)
        .map_err(|error| Error::invalid(format!("these are not a keyspace's settings: {error}")))
}

/// The alteration of a keyspace, from what is to change as JSON.
pub(crate) fn alter_request(name: &str, change: &str) -> Result<Request, Error> {
    let change = serde_json::from_str(change)
        .map_err(|error| Error::invalid(format!("this is not a change of a keyspace's settings: {error}")))?;
    Ok(Request::AlterKeyspace {
        name: name.to_owned(),
        change,
        write_id: WriteId::default(),
    })
}

/// The end of a keyspace.
pub(crate) fn drop_request(name: &str) -> Request {
    Request::DropKeyspace {
        name: name.to_owned(),
        write_id: WriteId::default(),
    }
}

/// A change of a node's faults, as JSON; without one, the question which there are.
pub(crate) fn faults_request(change: Option<&str>) -> Result<Request, Error> {
    let Some(change) = change else {
        return Ok(Request::Faults);
    };
    serde_json::from_str(change)
        .map(Request::ChangeFaults)
        .map_err(|error| Error::invalid(format!("this is not a change of faults: {error}")))
}

/// What is asked of single nodes, by name.
pub(crate) fn question(what: &str, argument: u128) -> Result<Request, Error> {
    match what {
        "status" => Ok(Request::Status),
        "events" => Ok(Request::Events {
            after: argument as u64,
        }),
        "spans" => Ok(Request::Spans { trace_id: argument }),
        "metrics" => Ok(Request::Metrics),
        "groups" => Ok(Request::Groups),
        _ => Err(Error::invalid(format!(
            "{what:?}: ask for status, events, spans, metrics or groups"
        ))),
    }
}
