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

/// How an operation on a keyspace is to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// `None` takes the keyspace's level.
    pub level: Option<Level>,
    /// For puts and deletes: what they replace; `None` replaces what the coordinating replica sees.
    pub context: Option<Context>,
    /// Timeout, trace, node.
    pub call: CallOptions,
}

/// Which part of a keyspace to scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// The first key, inclusive; `None` is the beginning.
    pub start: Option<Key>,
    /// The first key that is too far; `None` is the end.
    pub end: Option<Key>,
    /// Leave out `start` itself: it is the last key that was seen.
    pub after_start: bool,
    /// Entries per request; 0 takes 500.
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
    /// [`Error::NotFound`], naming those that do; otherwise as any call.
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

    /// Creates a keyspace, or finds the same one.
    ///
    /// # Errors
    /// [`Error::KeyspaceExists`] when there is one with other settings; otherwise as any call.
    pub async fn create_keyspace(&self, settings: KeyspaceSettings) -> Result<Keyspace, Error> {
        let request = Request::CreateKeyspace(settings);
        let answer = self.ask(request, CallOptions::default(), keyspace).await?;
        Ok(Keyspace {
            client: self.clone(),
            definition: answer.value,
        })
    }

    /// Changes settings of a keyspace, on all nodes; gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of that name; [`Error::InvalidArgument`] for a level that it does not have;
    /// otherwise as any call.
    pub async fn alter_keyspace(&self, name: &str, change: KeyspaceChange) -> Result<Definition, Error> {
        let request = Request::AlterKeyspace {
            name: name.to_owned(),
            change,
            write_id: WriteId::default(),
        };
        let answer = self.ask(request, CallOptions::default(), keyspace).await?;
        Ok(answer.value)
    }

    /// Has a keyspace no more; gives what it was. Its data cannot be reached any longer.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of that name; otherwise as any call.
    pub async fn drop_keyspace(&self, name: &str) -> Result<Definition, Error> {
        let request = Request::DropKeyspace {
            name: name.to_owned(),
            write_id: WriteId::default(),
        };
        let answer = self.ask(request, CallOptions::default(), keyspace).await?;
        Ok(answer.value)
    }

    /// All keyspaces.
    ///
    /// # Errors
    /// As any call.
    pub async fn keyspaces(&self) -> Result<Vec<Definition>, Error> {
        let take = |response| match response {
            Response::Keyspaces(keyspaces) => Some(keyspaces),
            _ => None,
        };
        let answer = self
            .ask(Request::ListKeyspaces, CallOptions::default(), take)
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

/// The outcome of each of `count` keys. What has failed as a whole has failed for each of them. Who has answered for a key, its
/// answer says; the boot of that node is known only if it has answered for all.
fn each<T>(
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
    fn write(&self, key: Key, value: Option<Bytes>, how: &How) -> Request {
        Request::Put {
            keyspace: self.id(),
            key,
            value,
            context: how.context.clone(),
            level: how.level,
            write_id: WriteId {
                client: 0,
                sequence: 0,
            },
        }
    }

    fn read(&self, key: Key, how: &How) -> Request {
        Request::Get {
            keyspace: self.id(),
            key,
            level: how.level,
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// Any [`Error`]; after [`Error::OutcomeUnknown`] the value may be there or come later.
    pub async fn put(&self, key: Key, value: impl Into<Bytes>, how: &How) -> Result<Reply<Written>, Error> {
        let request = self.write(key, Some(value.into()), how);
        self.client.ask(request, how.call, written).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub async fn delete(&self, key: Key, how: &How) -> Result<Reply<Written>, Error> {
        self.client
            .ask(self.write(key, None, how), how.call, written)
            .await
    }

    /// Reads a key; the entry has no versions when it does not exist.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::OutcomeUnknown`].
    pub async fn get(&self, key: Key, how: &How) -> Result<Reply<Entry>, Error> {
        self.client.ask(self.read(key, how), how.call, entry).await
    }

    /// Writes many values; each has an outcome of its own, in the order of the items. They are sent in parts, each to the node
    /// that its keys prefer; the timeout is that of each part.
    pub async fn put_many(
        &self,
        items: impl IntoIterator<Item = (Key, Bytes)>,
        how: &How,
    ) -> Vec<Result<Reply<Written>, Error>> {
        let item = |(key, value)| PutItem {
            key,
            value: Some(value),
            context: how.context.clone(),
        };
        let items: Vec<PutItem> = items.into_iter().map(item).collect();
        let count = items.len();
        let request = Request::PutMany {
            keyspace: self.id(),
            items,
            level: how.level,
            write_id: WriteId::default(),
        };
        let all = self.client.ask(request, how.call, written_many).await;
        each(all, count, |written| written.coordinator)
    }

    /// Reads many keys; each has an outcome of its own, in the order of the keys. They are asked for in parts, each at the node
    /// that its keys prefer; the timeout is that of each part.
    pub async fn get_many(
        &self,
        keys: impl IntoIterator<Item = Key>,
        how: &How,
    ) -> Vec<Result<Reply<Entry>, Error>> {
        let keys: Vec<Key> = keys.into_iter().collect();
        let count = keys.len();
        let request = Request::GetMany {
            keyspace: self.id(),
            keys,
            level: how.level,
        };
        let all = self.client.ask(request, how.call, entries).await;
        each(all, count, |entry| entry.coordinator)
    }

    /// One page of the keyspace, in key order.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::OutcomeUnknown`].
    pub async fn page(&self, range: ScanRange, how: &How) -> Result<Reply<Page>, Error> {
        let request = Request::Scan {
            keyspace: self.id(),
            start: range.start,
            end: range.end,
            after_start: range.after_start,
            limit: page_size(range.page),
            level: how.level,
        };
        self.client.ask(request, how.call, page).await
    }

    /// Reads a part of the keyspace in key order, page by page; the timeout is that of each page.
    pub fn scan(&self, range: ScanRange, how: &How) -> Scan {
        let mut scan = Scan {
            client: self.client.clone(),
            keyspace: self.id(),
            limit: page_size(range.page),
            end: range.end,
            level: how.level,
            options: how.call,
            under_way: None,
            buffered: Vec::new().into_iter(),
        };
        scan.ask(range.start, range.after_start);
        scan
    }
}

/// Entries of one page.
fn page_size(wanted: u32) -> u32 {
    if wanted == 0 { 500 } else { wanted }
}

/// A scan under way. The next page is asked for while the one before is being consumed.
pub struct Scan {
    client: Client,
    keyspace: KeyspaceId,
    end: Option<Key>,
    limit: u32,
    level: Option<Level>,
    options: CallOptions,
    under_way: Option<Call>,
    buffered: std::vec::IntoIter<(Key, Entry)>,
}

impl Scan {
    fn ask(&mut self, start: Option<Key>, after_start: bool) {
        let request = Request::Scan {
            keyspace: self.keyspace,
            start,
            end: self.end.clone(),
            after_start,
            limit: self.limit,
            level: self.level,
        };
        self.under_way = Some(self.client.call(request, self.options));
    }

    /// The next key and its entry, `None` at the end.
    ///
    /// # Errors
    /// That of the page that could not be read; the scan is over then. To go on, scan again from the last key.
    pub async fn next(&mut self) -> Result<Option<(Key, Entry)>, Error> {
        loop {
            if let Some(item) = self.buffered.next() {
                return Ok(Some(item));
            }
            let Some(call) = &mut self.under_way else {
                return Ok(None);
            };
            let outcome = call.await;
            self.under_way = None;
            let page = reply(outcome, page)?.value;
            if page.next.is_some() {
                self.ask(page.next, true);
            }
            self.buffered = page.entries.into_iter();
        }
    }
}
