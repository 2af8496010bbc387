//! Keyspaces in consensus mode, for Python.

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::{CallOptions, Reply};
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::api::{Committed, ReadLevel};
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceSettings};
use quorate_protocol::shard_command::{Condition, Write};
use quorate_raft::types::GroupId;

use crate::answers::ItemResult;
use crate::call::PendingCall;
use crate::client::Client;
use crate::errors::exception;
use crate::operations::on;
use crate::records::{RawCommit, RawLogPage, RawRecord, Records};
use crate::requests::{key_of, range_of};

/// Key, value, and the required version of the key, as in a put.
type Conditional<'py> = (Bound<'py, PyAny>, Bound<'py, PyBytes>, Option<u64>);

/// `None` accepts any version, 0 requires an absent key.
fn condition(version: Option<u64>) -> Condition {
    match version {
        None => Condition::Any,
        Some(0) => Condition::Absent,
        Some(version) => Condition::Version(version),
    }
}

/// A consensus keyspace.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Consensus {
    owner: Py<Client>,
    keyspace: quorate_client::Consensus,
}

/// The keyspace with this id and name, whose shards are these groups (id and members), on a ring with this hash.
pub(crate) fn open(
    owner: &Bound<'_, Client>,
    id: u32,
    name: &str,
    groups: Vec<(u32, Vec<u16>)>,
    hash: &str,
) -> PyResult<Consensus> {
    let replicas = groups.first().map_or(0, |(_, members)| members.len());
    let group = |(id, members): (u32, Vec<u16>)| Group {
        id: GroupId(id),
        members: members.into_iter().map(NodeId).collect(),
    };
    let definition = Keyspace {
        id: KeyspaceId(id),
        settings: KeyspaceSettings {
            shards: groups.len() as u16,
            ..KeyspaceSettings::consensus(name, replicas as u8)
        },
        groups: groups.into_iter().map(group).collect(),
    };
    let make = || owner.get().here()?.consensus(definition, hash.parse()?);
    let keyspace = make().map_err(|error| exception(owner.py(), error))?;
    Ok(Consensus {
        owner: owner.clone().unbind(),
        keyspace,
    })
}

#[pymethods]
impl Consensus {
    /// The shard that a key belongs to.
    fn shard_of(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<usize> {
        let key = key_of(key).map_err(|error| exception(py, error))?;
        Ok(self.keyspace.shard_of(&key))
    }

    /// The shard that entries with this source are appended to.
    fn shard_of_source(&self, source: &str) -> usize {
        self.keyspace.shard_of_source(source)
    }

    /// `version`: `None` accepts any, 0 requires an absent key.
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: Option<&[u8]>,
        version: Option<u64>,
        timeout: f64,
        trace: bool,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.writing(key, value, version, timeout, trace))
    }

    fn put_many(
        &self,
        py: Python<'_>,
        items: Vec<Conditional<'_>>,
        atomic: bool,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.writing_many(&items, atomic, timeout))
    }

    fn append(
        &self,
        py: Python<'_>,
        source: &str,
        data: &[u8],
        timeout: f64,
        trace: bool,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.appending(source, data, timeout, trace))
    }

    fn get(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        stale: bool,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.reading(key, stale, timeout, trace, node))
    }

    fn get_many(
        &self,
        py: Python<'_>,
        keys: Vec<Bound<'_, PyAny>>,
        stale: bool,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.reading_many(&keys, stale, timeout, node))
    }

    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        py: Python<'_>,
        start: Option<&Bound<'_, PyAny>>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        stale: bool,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.scanning(start, end, after_start, limit, stale, timeout))
    }

    /// A page of each of these shards' entries, each after its own id.
    fn entries(
        &self,
        py: Python<'_>,
        cursors: Vec<(usize, u64)>,
        limit: u32,
        stale: bool,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.pending(py, self.listing(cursors, limit, stale, timeout))
    }
}

/// The futures of operations. Python arguments are copied here.
impl Consensus {
    fn pending<F, T>(&self, py: Python<'_>, operation: Result<F, Error>) -> PyResult<PendingCall>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        self.owner.get().pending(py, operation)
    }

    /// The keyspace, unless this process was forked from the one that connected.
    fn here(&self) -> Result<quorate_client::Consensus, Error> {
        self.owner.get().here().map(|_| self.keyspace.clone())
    }

    fn options(&self, timeout: f64, trace: bool, node: Option<u16>) -> CallOptions {
        on(self.owner.get().options(timeout, trace), node)
    }

    fn writing(
        &self,
        key: &Bound<'_, PyAny>,
        value: Option<&[u8]>,
        version: Option<u64>,
        timeout: f64,
        trace: bool,
    ) -> Result<impl Future<Output = Result<RawCommit, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, trace, None));
        let key = key_of(key)?;
        let value = value.map(Bytes::copy_from_slice);
        let condition = condition(version);
        Ok(async move {
            let shard = keyspace.shard_of(&key);
            let answer = keyspace.write(key, value, condition, options).await;
            answer.map(|reply| RawCommit::new(shard, reply))
        })
    }

    fn writing_many(
        &self,
        items: &[Conditional<'_>],
        atomic: bool,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Vec<ItemResult<RawCommit>>, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, false, None));
        let write = |(key, value, version): &Conditional<'_>| {
            Ok(Write {
                key: key_of(key)?,
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
                condition: condition(*version),
            })
        };
        let writes: Vec<Write> = items.iter().map(write).collect::<Result<_, Error>>()?;
        let shards: Vec<usize> = writes.iter().map(|write| keyspace.shard_of(&write.key)).collect();
        Ok(async move {
            let answers = keyspace.write_many(writes, atomic, options).await?;
            let item_result = |(shard, answer): (usize, Result<Reply<Committed>, Error>)| {
                ItemResult(answer.map(|reply| RawCommit::new(shard, reply)))
            };
            Ok(shards.into_iter().zip(answers).map(item_result).collect())
        })
    }

    fn appending(
        &self,
        source: &str,
        data: &[u8],
        timeout: f64,
        trace: bool,
    ) -> Result<impl Future<Output = Result<RawCommit, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, trace, None));
        let (source, data) = (source.to_owned(), Bytes::copy_from_slice(data));
        Ok(async move {
            let answer = keyspace.append(source, data, options).await;
            answer.map(|(shard, reply)| RawCommit::new(shard, reply))
        })
    }

    fn reading(
        &self,
        key: &Bound<'_, PyAny>,
        stale: bool,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> Result<impl Future<Output = Result<RawRecord, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, trace, node));
        let key = key_of(key)?;
        Ok(async move {
            let answer = keyspace.get(key, level(stale), options).await;
            answer.map(RawRecord::of)
        })
    }

    fn reading_many(
        &self,
        keys: &[Bound<'_, PyAny>],
        stale: bool,
        timeout: f64,
        node: Option<u16>,
    ) -> Result<impl Future<Output = Result<Vec<ItemResult<RawRecord>>, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, false, node));
        let keys: Vec<Key> = keys.iter().map(key_of).collect::<Result<_, Error>>()?;
        Ok(async move {
            let answers = keyspace.get_many(keys, level(stale), options).await;
            Ok(answers
                .into_iter()
                .map(|answer| ItemResult(answer.map(RawRecord::of)))
                .collect())
        })
    }

    fn scanning(
        &self,
        start: Option<&Bound<'_, PyAny>>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        stale: bool,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Records, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, false, None));
        let range = range_of(start, end, after_start, limit)?;
        Ok(async move {
            let page = keyspace.page(range, level(stale), options).await;
            page.map(Records)
        })
    }

    fn listing(
        &self,
        cursors: Vec<(usize, u64)>,
        limit: u32,
        stale: bool,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Vec<RawLogPage>, Error>> + Send + use<>, Error> {
        let (keyspace, options) = (self.here()?, self.options(timeout, false, None));
        Ok(async move {
            let pages = keyspace.log_pages(&cursors, limit, level(stale), options).await;
            let page = |page: Reply<quorate_client::LogPage>| RawLogPage {
                entries: page.value.entries,
                next: page.value.next,
            };
            Ok(pages?.into_iter().map(page).collect())
        })
    }
}

fn level(stale: bool) -> ReadLevel {
    match stale {
        true => ReadLevel::Stale,
        false => ReadLevel::Linearizable,
    }
}
