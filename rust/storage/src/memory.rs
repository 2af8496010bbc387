//! The store's twin in memory, for the simulator: the same contract, and disks that misbehave on command.
//!
//! A commit has two moments, so that a simulated crash can fall between them:
//! [`begin_commit`](MemoryStore::begin_commit) hands the batch to the disk, [`finish_commit`](MemoryStore::finish_commit)
//! is the sync returning. Only then do readers see it. At a [`crash`](MemoryStore::crash) a batch that was begun
//! is there whole or not at all, as with the store on disk. Derived rows that no finished round of
//! [`apply_step`](Store::apply_step) has settled are gone after a crash.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use quorate_protocol::store::{JournalOp, StateWrite, StreamId, Table};

use self::reader::MemoryReader;
use crate::error::{CommitError, ReadError};
use crate::files::Bulk;
use crate::frame::{HEADER_BYTES, RecordError};
use crate::store::{
    DerivedRows, Reader, Store, TABLES, assert_contract, assert_writes, op_bytes, write_bytes,
};

/// What happens to the batch that was begun but not finished when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// It had not reached the disk.
    Lost,
    /// It had, although nobody was told.
    Kept,
}

/// A store in memory. A clone is a snapshot: it shares nothing with the original.
#[derive(Debug, Default)]
pub struct MemoryStore {
    durable: Arc<RwLock<Contents>>,
    begun: Option<Vec<JournalOp>>,
    capacity_bytes: Option<usize>,
    unapplied_bytes: usize,
    /// Of these, what the round of applying that was begun has left to do.
    round_bytes: usize,
    failed: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    tables: [BTreeMap<Bytes, Bytes>; TABLES.len()],
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    hard: BTreeMap<Bytes, Bytes>,
    corrupt: BTreeSet<(Table, Bytes)>,
    bytes: usize,
    derived: Derived,
}

/// What a crash does to derived rows: each goes back to what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Derived {
    /// Runs so far.
    runs: u64,
    /// Bytes of rows that wait for a round of applying.
    bytes: usize,
    /// What stands under the rows that wait for a round.
    waiting: Undo,
    /// What stands under the rows of the round that was begun, and its last run.
    round: (Undo, u64),
    /// The last run that survives a crash.
    settled: u64,
}

type Undo = BTreeMap<(Table, Bytes), Option<Bytes>>;

impl Contents {
    fn perform(&mut self, op: JournalOp) {
        match op {
            JournalOp::Write(writes) => writes.into_iter().for_each(|write| {
                let place = (write.table, write.key.clone());
                self.derived.waiting.remove(&place);
                self.derived.round.0.remove(&place);
                self.write(write);
            }),
            JournalOp::Append {
                stream,
                position,
                bytes,
            } => {
                self.bytes += bytes.len();
                let replaced = self.streams.entry(stream).or_default().insert(position, bytes);
                self.bytes -= replaced.map_or(0, |bytes| bytes.len());
            }
            JournalOp::Truncate { stream, from } => {
                let removed = self.streams.entry(stream).or_default().split_off(&from);
                self.bytes -= removed.values().map(Bytes::len).sum::<usize>();
            }
            JournalOp::Trim { stream, through } => {
                let entries = self.streams.entry(stream).or_default();
                let kept = through
                    .checked_add(1)
                    .map_or_else(BTreeMap::new, |next| entries.split_off(&next));
                let removed = std::mem::replace(entries, kept);
                self.bytes -= removed.values().map(Bytes::len).sum::<usize>();
            }
            JournalOp::PutHard { key, value } => {
                self.bytes += value.len();
                let replaced = self.hard.insert(key, value);
                self.bytes -= replaced.map_or(0, |value| value.len());
            }
            JournalOp::DeleteHard { key } => {
                let removed = self.hard.remove(&key);
                self.bytes -= removed.map_or(0, |value| value.len());
            }
        }
    }

    fn derive(&mut self, writes: Vec<StateWrite>) -> u64 {
        for write in writes {
            let under = self.tables[write.table as usize].get(&write.key).cloned();
            let place = (write.table, write.key.clone());
            self.derived.waiting.entry(place).or_insert(under);
            self.derived.bytes += write_bytes(&write);
            self.write(write);
        }
        self.derived.runs += 1;
        self.derived.runs
    }

    /// A round of applying begins: what waits is its.
    fn begin_round(&mut self) {
        self.derived.round = (std::mem::take(&mut self.derived.waiting), self.derived.runs);
    }

    /// The round is durable.
    fn end_round(&mut self) {
        self.derived.settled = self.derived.round.1;
        self.derived.round.0.clear();
    }

    /// Takes back what no round has settled.
    fn forget_derived(&mut self) {
        let Derived { waiting, round, .. } = std::mem::take(&mut self.derived);
        // The older last: it says what is on disk.
        for ((table, key), value) in waiting.into_iter().chain(round.0) {
            self.write(StateWrite { table, key, value });
        }
    }

    fn write(&mut self, StateWrite { table, key, value }: StateWrite) {
        self.corrupt.remove(&(table, key.clone()));
        let rows = &mut self.tables[table as usize];
        let key_bytes = key.len();
        let replaced = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len();
                rows.insert(key, value)
            }
            None => rows.remove(&key),
        };
        self.bytes -= replaced.map_or(0, |value| key_bytes + value.len());
    }

    /// Deletes the row `marker`, and rows with the prefix within the budget; whether there are more.
    fn clear(&mut self, table: Table, prefix: &[u8], marker: &Bytes, budget: usize) -> bool {
        let mut keys = vec![marker.clone()];
        let mut spent = 0;
        let mut more = false;
        let rows = &self.tables[table as usize];
        let rows = rows.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        for (key, value) in rows.take_while(|(key, _)| key.starts_with(prefix)) {
            if spent >= budget.max(1) {
                more = true;
                break;
            }
            spent += key.len() + value.len();
            keys.push(key.clone());
        }
        let deleted = keys.into_iter().map(|key| StateWrite {
            table,
            key,
            value: None,
        });
        self.perform(JournalOp::Write(deleted.collect()));
        more
    }

    fn value(&self, table: Table, key: &Bytes, value: &Bytes) -> Result<Bytes, ReadError> {
        if self.corrupt.contains(&(table, key.clone())) {
            let why = RecordError::Checksum { stated: 0, found: 1 };
            return Err(ReadError::Corrupt {
                table,
                key: key.clone(),
                why,
            });
        }
        Ok(value.clone())
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        MemoryStore {
            durable: Arc::new(RwLock::new(self.contents().clone())),
            begun: self.begun.clone(),
            capacity_bytes: self.capacity_bytes,
            unapplied_bytes: self.unapplied_bytes,
            round_bytes: self.round_bytes,
            failed: self.failed.clone(),
        }
    }
}

impl MemoryStore {
    /// An empty store without a bound.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds what the store takes, in bytes of keys and values; `None` lifts the bound.
    pub fn set_capacity(&mut self, bytes: Option<usize>) {
        self.capacity_bytes = bytes;
    }

    /// Makes every later commit fail as a broken disk would.
    pub fn fail(&mut self, detail: &str) {
        self.failed = Some(detail.to_owned());
    }

    /// Makes a row unreadable, as a byte that rots would, until it is written again.
    pub fn corrupt(&mut self, table: Table, key: &[u8]) {
        self.contents_mut()
            .corrupt
            .insert((table, Bytes::copy_from_slice(key)));
    }

    /// Hands a batch to the disk. Nothing of it is visible, or safe, before [`finish_commit`](Self::finish_commit).
    ///
    /// # Errors
    /// As [`Store::commit`].
    ///
    /// # Panics
    /// As [`Store::commit`], and if a batch was begun and not finished.
    pub fn begin_commit(&mut self, batch: Vec<JournalOp>) -> Result<(), CommitError> {
        assert!(self.begun.is_none(), "one batch at a time");
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        assert_contract(&batch);
        let growing = batch.iter().filter(|op| !op.takes_away());
        let growth: usize = growing.map(op_bytes).sum();
        let used = self.contents().bytes;
        if growth > 0
            && self
                .capacity_bytes
                .is_some_and(|capacity| used + growth > capacity)
        {
            return Err(CommitError::Full);
        }
        self.begun = Some(batch);
        Ok(())
    }

    /// The sync returned: the batch is durable and visible.
    ///
    /// # Panics
    /// If no batch was begun.
    pub fn finish_commit(&mut self) {
        let batch = self.begun.take().expect("a batch was begun");
        let mut contents = self.durable.write().expect("no holder of the contents panics");
        for op in batch {
            if let JournalOp::Write(writes) = &op {
                self.unapplied_bytes += writes.iter().map(write_bytes).sum::<usize>();
            }
            contents.perform(op);
        }
    }

    /// Whether a batch was begun and not finished.
    pub fn is_committing(&self) -> bool {
        self.begun.is_some()
    }

    /// The power goes, and comes back. Readers from before still see the disk as it is now.
    pub fn crash(&mut self, in_flight: InFlight) {
        match in_flight {
            InFlight::Kept if self.begun.is_some() => self.finish_commit(),
            _ => self.begun = None,
        }
        self.contents_mut().forget_derived();
        (self.unapplied_bytes, self.round_bytes) = (0, 0);
    }

    /// Derived rows; see [`DerivedRows::derive`].
    pub fn derive(&mut self, writes: Vec<StateWrite>) -> u64 {
        assert_writes(&writes);
        self.contents_mut().derive(writes)
    }

    /// All rows with a prefix, as they are now.
    pub(crate) fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let contents = self.contents();
        contents.tables[table as usize]
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| Ok((key.clone(), contents.value(table, key, value)?)))
            .collect()
    }

    /// Whether so many bytes more would fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.capacity_bytes
            .is_none_or(|capacity| self.contents().bytes + bytes <= capacity)
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.contents().bytes
    }

    fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.durable.read().expect("no holder of the contents panics")
    }

    fn contents_mut(&self) -> RwLockWriteGuard<'_, Contents> {
        self.durable.write().expect("no holder of the contents panics")
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError> {
        self.begin_commit(batch.to_vec())?;
        self.finish_commit();
        Ok(())
    }

    fn apply_step(&mut self, budget: usize) -> Result<bool, CommitError> {
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        if self.round_bytes == 0 {
            let mut contents = self.durable.write().expect("no holder of the contents panics");
            self.unapplied_bytes += std::mem::take(&mut contents.derived.bytes);
            self.round_bytes = self.unapplied_bytes;
            contents.begin_round();
        }
        let applied = self.round_bytes.min(budget);
        self.round_bytes -= applied;
        self.unapplied_bytes -= applied;
        if self.round_bytes == 0 {
            self.contents_mut().end_round();
        }
        Ok(self.round_bytes > 0)
    }

    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        match change {
            Bulk::Settle => {
                // The first round may be one that was begun before, the second has the rest.
                for _ in 0..2 {
                    while self.apply_step(usize::MAX)? {}
                }
                Ok(false)
            }
            Bulk::Clear {
                table,
                prefix,
                marker,
                budget,
            } => Ok(self.contents_mut().clear(*table, prefix, marker, *budget)),
            Bulk::Put { table, rows } => {
                if !self.has_room(rows.bytes()) {
                    return Err(CommitError::Full);
                }
                let table = *table;
                let writes = rows.rows().map(|(key, framed)| StateWrite {
                    table,
                    key,
                    value: Some(framed.slice(HEADER_BYTES..)),
                });
                self.contents_mut().perform(JournalOp::Write(writes.collect()));
                Ok(false)
            }
        }
    }

    fn derived(&self) -> Arc<dyn DerivedRows> {
        Arc::new(MemoryRows {
            durable: Arc::clone(&self.durable),
        })
    }

    fn settled(&self) -> u64 {
        self.contents().derived.settled
    }

    fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes + self.contents().derived.bytes
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader {
            durable: Arc::clone(&self.durable),
        })
    }
}

struct MemoryRows {
    durable: Arc<RwLock<Contents>>,
}

impl DerivedRows for MemoryRows {
    fn derive(&self, writes: Vec<StateWrite>) -> u64 {
        assert_writes(&writes);
        let mut contents = self.durable.write().expect("no holder of the contents panics");
        contents.derive(writes)
    }

    fn unapplied_bytes(&self) -> usize {
        let contents = self.durable.read().expect("no holder of the contents panics");
        contents.derived.bytes
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
