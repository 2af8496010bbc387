//! A keyspace by name: put, get, delete, many at a time, scan.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Entry, Page, PutItem, Request, Response, Written};
use quorate_protocol::keyspace::{Keyspace as Definition, KeyspaceChange, KeyspaceSettings, Mode};
use quorate_versions::{Context, WriteId};

use super::{Call, Client, Reply, reply};
use crate::core::CallOptions;

/// The options of an operation on a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationOptions {
    /// `None` uses the keyspace's level.
    pub level: Option<Level>,
    /// For puts and deletes: the versions to replace; `None` replaces those of the coordinating replica.
    pub context: Option<Context>,
    /// Timeout, trace, node.
    pub call: CallOptions,
}

/// The range of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// Inclusive lower bound; `None` is unbounded.
    pub start: Option<Key>,
    /// Exclusive upper bound; `None` is unbounded.
    pub end: Option<Key>,
    /// Makes `start` exclusive: it is the last key of the previous page.
    pub after_start: bool,
    /// Entries per request; 0 means 500.
    pub page: u32,
}

/// A keyspace of a cluster.
#[derive(Clone)]
pub struct Keyspace {
    client: Client,
    definition: Definition,
}

impl Client {
    /// A keyspace in quorum mode by its definition.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a keyspace of another mode.
    pub fn quorum(&self, definition: Definition) -> Result<Keyspace, Error> {
        if definition.settings.mode != Mode::Quorum {
            return Err(Error::invalid(format!(
                "keyspace {:?} is not in quorum mode",
                definition.settings.name
            )));
        }
        Ok(Keyspace {
            client: self.clone(),
            definition,
        })
    }

    /// A keyspace that exists.
    ///
    /// # Errors
    /// [`Error::NotFound`], naming those that exist; otherwise like any call.
    pub async fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        let all = self.keyspaces().await?;
        let names: Vec<String> = all
            .iter()
            .map(|keyspace| keyspace.settings.name.clone())
            .collect();
        let found = all.into_iter().find(|keyspace| keyspace.settings.name == name);
        let definition = found.ok_or_else(|| {
            let known = if names.is_empty() {
                "none yet".to_owned()
            } else {
                names.join(", ")
            };
            Error::NotFound(format!(
                "there is no keyspace {name:?} (known: {known}): create it"
            ))
        })?;
        Ok(Keyspace {
            client: self.clone(),
            definition,
        })
    }

    /// Creates a keyspace, or opens an identical one.
    ///
    /// # Errors
    /// [`Error::KeyspaceExists`] if one exists with other settings; otherwise like any call.
    pub async fn create_keyspace(&self, settings: KeyspaceSettings) -> Result<Keyspace, Error> {
        let request = Request::CreateKeyspace(settings);
        let answer = self
            .call_expecting(request, CallOptions::default(), keyspace)
            .await?;
        Ok(Keyspace {
            client: self.clone(),
            definition: answer.value,
        })
    }

    /// Changes settings of a keyspace, on all nodes; returns the new definition.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no keyspace has this name; [`Error::InvalidArgument`] for a level that it does not have;
    /// otherwise like any call.
    pub async fn alter_keyspace(&self, name: &str, change: KeyspaceChange) -> Result<Definition, Error> {
        let request = Request::AlterKeyspace {
            name: name.to_owned(),
            change,
            write_id: WriteId::default(),
        };
        let answer = self
            .call_expecting(request, CallOptions::default(), keyspace)
            .await?;
        Ok(answer.value)
    }

    /// Drops a keyspace; returns its last definition. Its data becomes unreachable.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no keyspace has this name; otherwise like any call.
    pub async fn drop_keyspace(&self, name: &str) -> Result<Definition, Error> {
        let request = Request::DropKeyspace {
            name: name.to_owned(),
            write_id: WriteId::default(),
        };
        let answer = self
            .call_expecting(request, CallOptions::default(), keyspace)
            .await?;
        Ok(answer.value)
    }

    /// All keyspaces.
    ///
    /// # Errors
    /// Like any call.
    pub async fn keyspaces(&self) -> Result<Vec<Definition>, Error> {
        let decode = |response| match response {
            Response::Keyspaces(keyspaces) => Some(keyspaces),
            _ => None,
        };
        let answer = self
            .call_expecting(Request::ListKeyspaces, CallOptions::default(), decode)
            .await?;
        Ok(answer.value)
    }
}

fn keyspace(response: Response) -> Option<Definition> {
    match response {
        Response::Keyspace { keyspace, .. } => Some(keyspace),
        _ => None,
    }
}

fn written(response: Response) -> Option<Written> {
    match response {
        Response::Written(written) => Some(written),
        _ => None,
    }
}

fn entry(response: Response) -> Option<Entry> {
    match response {
        Response::Entry(entry) => Some(entry),
        _ => None,
    }
}

fn written_many(response: Response) -> Option<Vec<Result<Written, Error>>> {
    match response {
        Response::WrittenMany(all) => Some(all),
        _ => None,
    }
}

fn entries(response: Response) -> Option<Vec<Result<Entry, Error>>> {
    match response {
        Response::Entries(all) => Some(all),
        _ => None,
    }
}

/// The outcome of each of `count` keys. If the whole request has failed, each of them has. The result of a key names
/// its coordinator; the boot of that node is known only if it coordinated all of them.
fn per_key<T>(
    all: Result<Reply<Vec<Result<T, Error>>>, Error>,
    count: usize,
    coordinator: impl Fn(&T) -> NodeId,
) -> Vec<Result<Reply<T>, Error>> {
    let mut reply = match all {
        Ok(reply) => reply,
        Err(error) => return (0..count).map(|_| Err(error.clone())).collect(),
    };
    let results = std::mem::take(&mut reply.value);
    let results = results.into_iter().map(|result| {
        let value = result?;
        let node = Some(coordinator(&value));
        Ok(Reply {
            node,
            ..reply.with(value)
        })
    });
    results.collect()
}

fn page(response: Response) -> Option<Page> {
    match response {
        Response::Page(page) => Some(page),
        _ => None,
    }
}

impl Keyspace {
    /// Its id and settings.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    fn id(&self) -> KeyspaceId {
        self.definition.id
    }

    /// The request that writes `value`, or a tombstone.
    fn write(&self, key: Key, value: Option<Bytes>, options: &OperationOptions) -> Request {
        Request::Put {
            keyspace: self.id(),
            key,
            value,
            context: options.context.clone(),
            level: options.level,
            write_id: WriteId {
                client: 0,
                sequence: 0,
            },
        }
    }

    fn read(&self, key: Key, options: &OperationOptions) -> Request {
        Request::Get {
            keyspace: self.id(),
            key,
            level: options.level,
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// Any [`Error`]; after [`Error::OutcomeUnknown`] the value may be present now or later.
    pub async fn put(
        &self,
        key: Key,
        value: impl Into<Bytes>,
        options: &OperationOptions,
    ) -> Result<Reply<Written>, Error> {
        let request = self.write(key, Some(value.into()), options);
        self.client.call_expecting(request, options.call, written).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// Like [`Keyspace::put`].
    pub async fn delete(&self, key: Key, options: &OperationOptions) -> Result<Reply<Written>, Error> {
        self.client
            .call_expecting(self.write(key, None, options), options.call, written)
            .await
    }

    /// Reads a key; the entry of an absent key has no versions.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::OutcomeUnknown`].
    pub async fn get(&self, key: Key, options: &OperationOptions) -> Result<Reply<Entry>, Error> {
        self.client
            .call_expecting(self.read(key, options), options.call, entry)
            .await
    }

    /// Writes many values; each has its own outcome, in the order of the items. They are sent in parts, each to the
    /// node that its keys prefer; the timeout applies to each part.
    pub async fn put_many(
        &self,
        items: impl IntoIterator<Item = (Key, Bytes)>,
        options: &OperationOptions,
    ) -> Vec<Result<Reply<Written>, Error>> {
        let item = |(key, value)| PutItem {
            key,
            value: Some(value),
            context: options.context.clone(),
        };
        let items: Vec<PutItem> = items.into_iter().map(item).collect();
        let count = items.len();
        let request = Request::PutMany {
            keyspace: self.id(),
            items,
            level: options.level,
            write_id: WriteId::default(),
        };
        let all = self
            .client
            .call_expecting(request, options.call, written_many)
            .await;
        per_key(all, count, |written| written.coordinator)
    }

    /// Reads many keys; each has its own outcome, in the order of the keys. They are read in parts, each from the node
    /// that its keys prefer; the timeout applies to each part.
    pub async fn get_many(
        &self,
        keys: impl IntoIterator<Item = Key>,
        options: &OperationOptions,
    ) -> Vec<Result<Reply<Entry>, Error>> {
        let keys: Vec<Key> = keys.into_iter().collect();
        let count = keys.len();
        let request = Request::GetMany {
            keyspace: self.id(),
            keys,
            level: options.level,
        };
        let all = self.client.call_expecting(request, options.call, entries).await;
        per_key(all, count, |entry| entry.coordinator)
    }

    /// One page of the keyspace, in key order.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::OutcomeUnknown`].
    pub async fn page(&self, range: ScanRange, options: &OperationOptions) -> Result<Reply<Page>, Error> {
        let request = Request::Scan {
            keyspace: self.id(),
            start: range.start,
            end: range.end,
            after_start: range.after_start,
            limit: page_size(range.page),
            level: options.level,
        };
        self.client.call_expecting(request, options.call, page).await
    }

    /// Reads a range of the keyspace in key order, page by page; the timeout applies to each page.
    pub fn scan(&self, range: ScanRange, options: &OperationOptions) -> Scan {
        let mut scan = Scan {
            client: self.client.clone(),
            keyspace: self.id(),
            limit: page_size(range.page),
            end: range.end,
            level: options.level,
            options: options.call,
            pending: None,
            buffered: Vec::new().into_iter(),
        };
        scan.request_page(range.start, range.after_start);
        scan
    }
}

/// Entries per page.
fn page_size(wanted: u32) -> u32 {
    if wanted == 0 { 500 } else { wanted }
}

/// A running scan. The next page is requested while the current one is being consumed.
pub struct Scan {
    client: Client,
    keyspace: KeyspaceId,
    end: Option<Key>,
    limit: u32,
    level: Option<Level>,
    options: CallOptions,
    pending: Option<Call>,
    buffered: std::vec::IntoIter<(Key, Entry)>,
}

impl Scan {
    fn request_page(&mut self, start: Option<Key>, after_start: bool) {
        let request = Request::Scan {
            keyspace: self.keyspace,
            start,
            end: self.end.clone(),
            after_start,
            limit: self.limit,
            level: self.level,
        };
        self.pending = Some(self.client.call(request, self.options));
    }

    /// The next key and its entry, `None` at the end.
    ///
    /// # Errors
    /// The error of the page that could not be read, which ends the scan. To continue, scan again from the last key.
    pub async fn next(&mut self) -> Result<Option<(Key, Entry)>, Error> {
        loop {
            if let Some(item) = self.buffered.next() {
                return Ok(Some(item));
            }
            let Some(call) = &mut self.pending else {
                return Ok(None);
            };
            let outcome = call.await;
            self.pending = None;
            let page = reply(outcome, page)?.value;
            if page.next.is_some() {
                self.request_page(page.next, true);
            }
            self.buffered = page.entries.into_iter();
        }
    }
}
