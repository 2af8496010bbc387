//! Keyspaces in quorum mode, for Python.

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::{OperationOptions, Reply};
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};

use crate::answers::{ItemResult, Page, RawEntry, RawWrite};
use crate::call::PendingCall;
use crate::client::Client;
use crate::context::Context;
use crate::errors::exception;
use crate::operations::on;
use crate::requests::{key_of, level_of, range_of};

/// A keyspace in quorum mode.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Quorum {
    owner: Py<Client>,
    keyspace: quorate_client::Keyspace,
}

/// The keyspace with this id and name, with this number of replicas.
pub(crate) fn open(owner: &Bound<'_, Client>, id: u32, name: &str, replicas: u8) -> PyResult<Quorum> {
    let definition = Keyspace {
        id: KeyspaceId(id),
        settings: KeyspaceSettings::quorum(name, replicas),
        groups: Vec::new(),
    };
    let made = owner.get().here().and_then(|client| client.quorum(definition));
    let keyspace = made.map_err(|error| exception(owner.py(), error))?;
    Ok(Quorum {
        owner: owner.clone().unbind(),
        keyspace,
    })
}

#[pymethods]
impl Quorum {
    /// Deletes the key if `value` is `None`.
    #[allow(clippy::too_many_arguments)]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: Option<&[u8]>,
        context: Option<&Bound<'_, Context>>,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        trace: bool,
    ) -> PyResult<PendingCall> {
        let writing = || {
            let options = OperationOptions {
                context: context.map(|context| context.get().0.clone()),
                ..self.options(level, timeout, trace, None)?
            };
            let (keyspace, key) = (self.here()?, key_of(key)?);
            let value = value.map(Bytes::copy_from_slice);
            Ok(async move {
                let written = match value {
                    Some(value) => keyspace.put(key, value, &options).await,
                    None => keyspace.delete(key, &options).await,
                };
                written.map(RawWrite::of)
            })
        };
        self.owner.get().pending(py, writing())
    }

    fn get(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        let reading = || {
            let options = self.options(level, timeout, trace, node)?;
            let (keyspace, key) = (self.here()?, key_of(key)?);
            Ok(async move { keyspace.get(key, &options).await.map(RawEntry::of) })
        };
        self.owner.get().pending(py, reading())
    }

    /// Each put has its own outcome.
    fn put_many(
        &self,
        py: Python<'_>,
        items: Vec<(Bound<'_, PyAny>, Bound<'_, PyBytes>)>,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let writing = || {
            let (keyspace, options) = (self.here()?, self.options(level, timeout, false, None)?);
            let item = |(key, value): &(Bound<'_, PyAny>, Bound<'_, PyBytes>)| {
                Ok((key_of(key)?, Bytes::copy_from_slice(value.as_bytes())))
            };
            let (items, places) = split_invalid(items.iter().map(item));
            Ok(async move {
                let written = keyspace.put_many(items, &options).await;
                Ok(join_results(places, written, RawWrite::of))
            })
        };
        self.owner.get().pending(py, writing())
    }

    /// Each get has its own outcome.
    fn get_many(
        &self,
        py: Python<'_>,
        keys: Vec<Bound<'_, PyAny>>,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        let reading = || {
            let (keyspace, options) = (self.here()?, self.options(level, timeout, false, node)?);
            let (keys, places) = split_invalid::<Key>(keys.iter().map(key_of));
            Ok(async move {
                let found = keyspace.get_many(keys, &options).await;
                Ok(join_results(places, found, RawEntry::of))
            })
        };
        self.owner.get().pending(py, reading())
    }

    /// One page.
    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        py: Python<'_>,
        start: Option<&Bound<'_, PyAny>>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let scanning = || {
            let (keyspace, options) = (self.here()?, self.options(level, timeout, false, None)?);
            let range = range_of(start, end, after_start, limit)?;
            Ok(async move { keyspace.page(range, &options).await.map(Page) })
        };
        self.owner.get().pending(py, scanning())
    }
}

impl Quorum {
    /// The keyspace, unless this process was forked from the one that connected.
    fn here(&self) -> Result<quorate_client::Keyspace, Error> {
        self.owner.get().here().map(|_| self.keyspace.clone())
    }

    fn options(
        &self,
        level: Option<&Bound<'_, PyAny>>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> Result<OperationOptions, Error> {
        let level: Option<Level> = level_of(level)?;
        Ok(OperationOptions {
            level,
            context: None,
            call: on(self.owner.get().options(timeout, trace), node),
        })
    }
}

/// Splits the items of a batch into valid ones, which are sent, and errors of invalid ones, which are their outcomes.
fn split_invalid<T>(items: impl Iterator<Item = Result<T, Error>>) -> (Vec<T>, Vec<Result<(), Error>>) {
    let (mut sent, mut places) = (Vec::new(), Vec::new());
    for item in items {
        places.push(item.map(|item| sent.push(item)));
    }
    (sent, places)
}

/// Joins the outcomes of all items of a batch, in their order.
fn join_results<T, R>(
    places: Vec<Result<(), Error>>,
    outcomes: Vec<Result<Reply<T>, Error>>,
    answer: fn(Reply<T>) -> R,
) -> Vec<ItemResult<R>> {
    let mut outcomes = outcomes.into_iter();
    let next = |place: Result<(), Error>| {
        let unanswered = || Err(Error::Refused("a batch has fewer outcomes than items".to_owned()));
        ItemResult(
            place
                .and_then(|()| outcomes.next().unwrap_or_else(unanswered))
                .map(answer),
        )
    };
    places.into_iter().map(next).collect()
}
