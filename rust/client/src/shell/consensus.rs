//! A consensus keyspace: its keys are distributed over Raft groups, and requests go to the group of their key.
//!
//! An operation on one key, or on one shard, is one request. Batches are split by shard: each part is atomic, the whole
//! is not. Scans and lists of entries read all shards concurrently and merge the results; they are consistent within
//! each shard, not across shards.

mod get_many;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_protocol::api::{Committed, LogEntry, ReadLevel, Record, Request, Response, View};
use quorate_protocol::keyspace::{Keyspace as Definition, Mode};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;

use super::{Client, Reply, ScanRange};
use crate::core::CallOptions;

/// Maximum writes and bytes of one part of a batch that is not atomic.
const PART_WRITES: usize = 512;
const PART_BYTES: usize = 256 << 10;

/// A consensus keyspace of a cluster.
#[derive(Clone)]
pub struct Consensus {
    client: Client,
    definition: Arc<Definition>,
    hash: HashKind,
    /// Bytes of the largest value that was read.
    largest: Arc<AtomicUsize>,
}

/// The record of a key, `None` if it is absent, and the state that was read.
pub type RecordRead = (Option<Record>, View);

/// Part of a scan over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    /// In key order; each with the state of its shard that was read.
    pub entries: Vec<(Key, Record, View)>,
    /// The start of the next page (`after_start: true`); `None` when the scan is complete.
    pub next: Option<Key>,
}

/// Part of one shard's log of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Sorted by id.
    pub entries: Vec<LogEntry>,
    /// The start of the next page (`after`); `None` at the end.
    pub next: Option<u64>,
    /// The state that was read.
    pub view: View,
}

impl Client {
    /// A consensus keyspace by its definition, on a ring with this hash.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a keyspace of another mode.
    pub fn consensus(&self, definition: Definition, hash: HashKind) -> Result<Consensus, Error> {
        if definition.settings.mode != Mode::Consensus || definition.groups.is_empty() {
            return Err(Error::invalid(format!(
                "keyspace {:?} is not in consensus mode",
                definition.settings.name
            )));
        }
        Ok(Consensus {
            client: self.clone(),
            definition: Arc::new(definition),
            hash,
            largest: Arc::default(),
        })
    }
}

impl Consensus {
    /// Its id, settings and groups.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The shard that a key belongs to.
    pub fn shard_of(&self, key: &Key) -> usize {
        self.definition.shard_of_key(self.hash, key)
    }

    /// The shard that entries with this source are appended to.
    pub fn shard_of_source(&self, source: &str) -> usize {
        self.definition.shard_of_source(self.hash, source)
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.definition.groups.len()
    }

    fn group(&self, shard: usize) -> GroupId {
        self.definition.groups[shard].id
    }

    /// The group of the shard with this number.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none, naming the valid numbers.
    fn numbered(&self, shard: usize) -> Result<GroupId, Error> {
        let group = self.definition.groups.get(shard);
        group.map(|group| group.id).ok_or_else(|| {
            let last = self.shards() - 1;
            let name = &self.definition.settings.name;
            Error::invalid(format!(
                "keyspace {name:?} has no shard {shard}: there are 0 to {last}"
            ))
        })
    }

    fn propose(&self, shard: usize, command: Command) -> Request {
        Request::Propose {
            keyspace: self.definition.id,
            group: self.group(shard),
            command,
            session: None,
        }
    }

    /// The request that writes a value.
    pub(crate) fn put_request(&self, key: Key, value: Bytes) -> Request {
        let shard = self.shard_of(&key);
        let write = Write {
            key,
            value: Some(value),
            condition: Condition::Any,
        };
        self.propose(shard, Command::Write(vec![write]))
    }

    /// The request that reads a key.
    pub(crate) fn get_request(&self, key: Key, level: ReadLevel) -> Request {
        self.read(self.shard_of(&key), vec![key], level)
    }

    /// Writes a value, or deletes the key if `value` is `None`, if the condition holds.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the key's version; otherwise any [`Error`].
    pub async fn write(
        &self,
        key: Key,
        value: Option<Bytes>,
        condition: Condition,
        options: CallOptions,
    ) -> Result<Reply<Committed>, Error> {
        let shard = self.shard_of(&key);
        let command = Command::Write(vec![Write {
            key,
            value,
            condition,
        }]);
        self.client
            .call_expecting(self.propose(shard, command), options, committed)
            .await
    }

    /// Writes many values, concurrently across shards. Those of one shard are written atomically if `atomic`; otherwise
    /// in parts, each of which is atomic. The outcomes are in the order of the writes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::LimitExceeded`] for an invalid part; then nothing is written.
    pub async fn write_many(
        &self,
        writes: Vec<Write>,
        atomic: bool,
        options: CallOptions,
    ) -> Result<Vec<Result<Reply<Committed>, Error>>, Error> {
        let mut parts: BTreeMap<usize, (Vec<usize>, Vec<Write>)> = BTreeMap::new();
        for (place, write) in writes.into_iter().enumerate() {
            let (places, writes) = parts.entry(self.shard_of(&write.key)).or_default();
            places.push(place);
            writes.push(write);
        }
        let mut outcomes = BTreeMap::new();
        let mut requests = Vec::new();
        let mut all_places = Vec::new();
        for (shard, (mut places, mut writes)) in parts {
            if !atomic {
                distinct(&writes)?;
            }
            while !writes.is_empty() {
                let count = if atomic { writes.len() } else { part(&writes) };
                let rest = (places.split_off(count), writes.split_off(count));
                let command = Command::Write(writes);
                command.validate()?;
                requests.push(self.propose(shard, command));
                all_places.push(places);
                (places, writes) = rest;
            }
        }
        let answers = self
            .client
            .call_each_expecting(requests, options, committed)
            .await;
        for (places, answer) in all_places.into_iter().zip(answers) {
            outcomes.extend(places.into_iter().map(|place| (place, answer.clone())));
        }
        Ok(outcomes.into_values().collect())
    }

    /// Appends an entry to the log of the shard that the source determines; returns the shard.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn append(
        &self,
        source: String,
        data: Bytes,
        options: CallOptions,
    ) -> Result<(usize, Reply<Committed>), Error> {
        let shard = self.shard_of_source(&source);
        let request = self.propose(shard, Command::Append { source, data });
        Ok((
            shard,
            self.client.call_expecting(request, options, committed).await?,
        ))
    }

    fn read(&self, shard: usize, keys: Vec<Key>, level: ReadLevel) -> Request {
        Request::Read {
            keyspace: self.definition.id,
            group: self.group(shard),
            keys,
            level,
        }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::OutcomeUnknown`].
    pub async fn get(
        &self,
        key: Key,
        level: ReadLevel,
        options: CallOptions,
    ) -> Result<Reply<RecordRead>, Error> {
        let decode = |response| {
            let (mut records, view) = records(response)?;
            Some((records.pop()?, view))
        };
        let request = self.get_request(key, level);
        self.client.call_expecting(request, options, decode).await
    }

    /// One page of the keys of all shards, in key order.
    ///
    /// # Errors
    /// The error of the first shard that could not be read.
    pub async fn page(
        &self,
        range: ScanRange,
        level: ReadLevel,
        options: CallOptions,
    ) -> Result<Reply<RecordPage>, Error> {
        let limit = if range.page == 0 { 500 } else { range.page };
        let share = share(limit, self.shards());
        let request = |shard| Request::ReadRange {
            keyspace: self.definition.id,
            group: self.group(shard),
            start: range.start.clone(),
            end: range.end.clone(),
            after_start: range.after_start,
            limit: share,
            level,
        };
        let requests: Vec<Request> = (0..self.shards()).map(request).collect();
        let answers = self
            .client
            .call_each_expecting(requests, options, record_page)
            .await;
        let answers: Vec<Reply<RecordPage>> = answers.into_iter().collect::<Result<_, _>>()?;
        let slowest = answers.iter().max_by_key(|answer| answer.elapsed);
        let reply = slowest.ok_or_else(too_few_results)?.with(());
        let pages = answers.into_iter().map(|answer| answer.value).collect();
        Ok(reply.with(merge(pages, limit as usize)))
    }

    /// A page of each of these shards' logs, each after its own id.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a shard that does not exist; otherwise the error of the first that could not be read.
    pub async fn log_pages(
        &self,
        cursors: &[(usize, u64)],
        limit: u32,
        level: ReadLevel,
        options: CallOptions,
    ) -> Result<Vec<Reply<LogPage>>, Error> {
        let request = |(shard, after): &(usize, u64)| {
            Ok(Request::ReadLog {
                keyspace: self.definition.id,
                group: self.numbered(*shard)?,
                after: *after,
                limit,
                level,
            })
        };
        let requests: Vec<Request> = cursors.iter().map(request).collect::<Result<_, Error>>()?;
        let answers = self.client.call_each_expecting(requests, options, log_page).await;
        answers.into_iter().collect()
    }
}

/// The number of these writes in the next part of a batch that is not atomic.
fn part(writes: &[Write]) -> usize {
    let bytes = |write: &Write| write.key.size() + write.value.as_ref().map_or(0, Bytes::len);
    let mut size = 0;
    let fits = |write: &&Write| {
        size += bytes(write);
        size <= PART_BYTES
    };
    let fitting = writes.iter().take(PART_WRITES).take_while(fits).count();
    fitting.max(1)
}

/// Parts may be executed in any order, so no key may be in two of them.
fn distinct(writes: &[Write]) -> Result<(), Error> {
    let mut keys = BTreeSet::new();
    match writes.iter().find(|write| !keys.insert(&write.key)) {
        None => Ok(()),
        Some(twice) => Err(Error::invalid(format!(
            "key {} occurs twice in one batch: write each key once",
            twice.key
        ))),
    }
}

/// The number of keys to read from each shard: a little more than its share of a page, since keys are not spread quite evenly.
fn share(limit: u32, shards: usize) -> u32 {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
    if shards == 1 {
        return limit.max(1);
    }
    let even = limit.div_ceil(shards);
    even.saturating_add(even / 4).saturating_add(1).min(limit.max(1))
}

/// Merges the pages of all shards: in key order, up to the last key that all of them cover.
fn merge(pages: Vec<RecordPage>, limit: usize) -> RecordPage {
    let horizon = pages.iter().filter_map(|page| page.next.clone()).min();
    let mut entries: Vec<(Key, Record, View)> = pages
        .into_iter()
        .flat_map(|page| page.entries)
        .filter(|(key, _, _)| horizon.as_ref().is_none_or(|horizon| key <= horizon))
        .collect();
    entries.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let mut next = horizon;
    if entries.len() > limit {
        entries.truncate(limit);
        next = entries.last().map(|(key, _, _)| key.clone());
    }
    RecordPage { entries, next }
}

fn too_few_results() -> Error {
    Error::Refused("the response has fewer results than requested keys: not a Quorate node".to_owned())
}

fn committed(response: Response) -> Option<Committed> {
    match response {
        Response::Committed(committed) => Some(committed),
        _ => None,
    }
}

fn records(response: Response) -> Option<(Vec<Option<Record>>, View)> {
    match response {
        Response::Records { records, view } => Some((records, view)),
        _ => None,
    }
}

fn record_page(response: Response) -> Option<RecordPage> {
    match response {
        Response::RecordPage { entries, next, view } => Some(RecordPage {
            entries: entries
                .into_iter()
                .map(|(key, record)| (key, record, view))
                .collect(),
            next,
        }),
        _ => None,
    }
}

fn log_page(response: Response) -> Option<LogPage> {
    match response {
        Response::LogPage { entries, next, view } => Some(LogPage { entries, next, view }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::NodeId;
    use quorate_core::time::WallTime;

    use super::*;

    fn item(number: u32) -> (Key, Record, View) {
        let view = View {
            node: NodeId(1),
            leader: None,
            applied: 1,
            staleness_micros: None,
        };
        let record = Record {
            version: 1,
            time: WallTime(1),
            value: Bytes::new(),
        };
        (Key::of(format!("k{number:04}")).unwrap(), record, view)
    }

    /// Scans keys 0..count that are spread over shards by chance, page by page.
    fn scan(count: u32, shards: usize, limit: u32, seed: u32) -> (Vec<Key>, usize) {
        let shard_of = |number: u32| (number.wrapping_mul(2_654_435_761) ^ seed) as usize / 7 % shards;
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let part = |shard| {
                let later =
                    |item: &(Key, Record, View)| cursor.as_ref().is_none_or(|cursor| item.0 > *cursor);
                let mine = (0..count).filter(|number| shard_of(*number) == shard).map(item);
                let mut entries: Vec<_> = mine.filter(later).collect();
                let more = entries.len() > share(limit, shards) as usize;
                entries.truncate(share(limit, shards) as usize);
                let next = entries.last().map(|(key, _, _)| key.clone()).filter(|_| more);
                RecordPage { entries, next }
            };
            let page = merge((0..shards).map(part).collect(), limit as usize);
            pages += 1;
            assert!(page.entries.len() <= limit as usize);
            assert!(
                !page.entries.is_empty() || page.next.is_none(),
                "a page advances the scan"
            );
            found.extend(page.entries.into_iter().map(|(key, _, _)| key));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return (found, pages),
            }
        }
    }

    #[test]
    fn a_scan_over_shards_is_in_order_and_misses_nothing() {
        for shards in [1, 2, 4, 7] {
            for limit in [1, 2, 3, 10, 64, 500] {
                for seed in 0..5 {
                    let (found, _) = scan(300, shards, limit, seed);
                    let wanted: BTreeSet<Key> = (0..300).map(|number| item(number).0).collect();
                    assert_eq!(
                        found,
                        wanted.into_iter().collect::<Vec<_>>(),
                        "{shards} shards, pages of {limit}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_batch_that_is_not_atomic_is_cut_into_parts_that_a_shard_takes() {
        let write = |number: usize, bytes: usize| Write {
            key: Key::of(format!("k{number:04}")).unwrap(),
            value: Some(Bytes::from(vec![0; bytes])),
            condition: Condition::Any,
        };
        let small: Vec<Write> = (0..2_000).map(|number| write(number, 10)).collect();
        assert_eq!(part(&small), PART_WRITES);
        let large: Vec<Write> = (0..3).map(|number| write(number, 1 << 20)).collect();
        assert_eq!(part(&large), 1);
        let mixed: Vec<Write> = (0..10).map(|number| write(number, 100 << 10)).collect();
        assert_eq!(part(&mixed), 2);
        assert!(distinct(&small).is_ok());
        let twice = vec![write(1, 1), write(2, 1), write(1, 1)];
        assert!(matches!(distinct(&twice), Err(Error::InvalidArgument(text)) if text.contains("k0001")));
    }

    #[test]
    fn pages_are_used_for_the_most_part() {
        let (_, pages) = scan(2_000, 4, 100, 3);
        assert!(pages <= 30, "{pages} pages for 2,000 keys in pages of 100");
    }
}
