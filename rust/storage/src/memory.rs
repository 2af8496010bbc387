//! The in-memory store, for the simulator: the same contract, with injected disk faults.
//!
//! A commit has two steps, so that a simulated crash can happen between them:
//! [`begin_commit`](MemoryStore::begin_commit) submits the batch to the disk, [`finish_commit`](MemoryStore::finish_commit)
//! is the return of the sync, which makes it visible to readers. After a [`crash`](MemoryStore::crash) a batch that was
//! begun is durable as a whole or not at all, as with the store on disk. A crash loses derived rows that no finished round
//! of [`apply_step`](Store::apply_step) has flushed.

mod reader;

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use quorate_core::store::contents::{Contents, Unreadable};
use quorate_core::store::{JournalOp, StateWrite, Table};

use self::reader::MemoryReader;
use crate::bulk::Bulk;
use crate::error::{CommitError, ReadError};
use crate::frame::{HEADER_BYTES, RecordError};
use crate::store::{DerivedRows, Reader, Store, assert_contract, assert_writes, op_bytes, write_bytes};

/// What a power failure does to a batch that was begun but not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// It is lost.
    Lost,
    /// It is durable, although the commit has not returned.
    Kept,
}

/// A store in memory. A clone is an independent snapshot.
#[derive(Debug, Default)]
pub struct MemoryStore {
    durable: Arc<RwLock<Durable>>,
    begun: Option<Vec<JournalOp>>,
    capacity_bytes: Option<usize>,
    unapplied_bytes: usize,
    /// The part of these that the current round of applying has left.
    round_bytes: usize,
    failed: Option<String>,
}

/// The durable and visible contents, and the progress of applying.
#[derive(Clone, Debug, Default)]
struct Durable {
    contents: Contents,
    /// Bytes of derived rows that are not in a round of applying yet.
    derived_bytes: usize,
    /// The last run of the current round.
    round: u64,
}

impl Durable {
    fn apply_rows(&mut self, writes: Vec<StateWrite>) -> u64 {
        self.derived_bytes += writes.iter().map(write_bytes).sum::<usize>();
        self.contents.apply_rows(writes)
    }

    /// Deletes the row `marker`, and rows with the prefix within the budget; returns whether there are more.
    fn clear(&mut self, table: Table, prefix: &[u8], marker: &Bytes, budget: usize) -> bool {
        let mut keys = vec![marker.clone()];
        let mut spent = 0;
        let mut more = false;
        let rows = self.contents.rows_from(table, prefix);
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
        self.contents.perform(JournalOp::Write(deleted.collect()));
        more
    }
}

fn unreadable(Unreadable { table, key }: Unreadable) -> ReadError {
    let why = RecordError::Checksum { stated: 0, found: 1 };
    ReadError::Corrupt { table, key, why }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        MemoryStore {
            durable: Arc::new(RwLock::new(self.durable().clone())),
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

    /// Sets the capacity of the store, in bytes of keys and values; `None` removes the limit.
    pub fn set_capacity(&mut self, bytes: Option<usize>) {
        self.capacity_bytes = bytes;
    }

    /// Makes every later commit fail, like a broken disk.
    pub fn fail(&mut self, detail: &str) {
        self.failed = Some(detail.to_owned());
    }

    /// Makes a row unreadable, like a corrupt byte, until it is written again.
    pub fn corrupt(&mut self, table: Table, key: &[u8]) {
        self.durable_mut()
            .contents
            .corrupt(table, Bytes::copy_from_slice(key));
    }

    /// Submits a batch to the disk. It is neither visible nor durable before [`finish_commit`](Self::finish_commit).
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
        let used = self.bytes();
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
        let mut durable = self.durable.write().expect("no holder of the contents panics");
        for op in batch {
            if let JournalOp::Write(writes) = &op {
                self.unapplied_bytes += writes.iter().map(write_bytes).sum::<usize>();
            }
            durable.contents.perform(op);
        }
    }

    /// Whether a batch was begun and not finished.
    pub fn is_committing(&self) -> bool {
        self.begun.is_some()
    }

    /// Power failure and restart. Existing readers see the disk after the crash.
    pub fn crash(&mut self, in_flight: InFlight) {
        match in_flight {
            InFlight::Kept if self.begun.is_some() => self.finish_commit(),
            _ => self.begun = None,
        }
        let mut durable = self.durable_mut();
        durable.contents.drop_unflushed();
        (durable.derived_bytes, durable.round) = (0, 0);
        drop(durable);
        (self.unapplied_bytes, self.round_bytes) = (0, 0);
    }

    /// Derived rows; see [`DerivedRows::apply_rows`].
    pub fn apply_rows(&mut self, writes: Vec<StateWrite>) -> u64 {
        assert_writes(&writes);
        self.durable_mut().apply_rows(writes)
    }

    /// All current rows with a prefix.
    pub(crate) fn rows(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let contents = &self.durable().contents;
        let rows = contents
            .rows_from(table, prefix)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, _)| Ok((key.clone(), contents.get(table, key)?.unwrap_or_default())));
        rows.collect::<Result<_, _>>().map_err(unreadable)
    }

    /// Whether this many more bytes fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.capacity_bytes
            .is_none_or(|capacity| self.bytes() + bytes <= capacity)
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.durable().contents.bytes()
    }

    fn durable(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().expect("no holder of the contents panics")
    }

    fn durable_mut(&self) -> RwLockWriteGuard<'_, Durable> {
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
            let mut durable = self.durable.write().expect("no holder of the contents panics");
            self.unapplied_bytes += std::mem::take(&mut durable.derived_bytes);
            self.round_bytes = self.unapplied_bytes;
            durable.round = durable.contents.batches();
        }
        let applied = self.round_bytes.min(budget);
        self.round_bytes -= applied;
        self.unapplied_bytes -= applied;
        if self.round_bytes == 0 {
            let mut durable = self.durable_mut();
            let round = durable.round;
            durable.contents.flush(round);
        }
        Ok(self.round_bytes > 0)
    }

    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        match change {
            Bulk::Flush => {
                // The first round may be one that was started before, the second has the rest.
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
            } => Ok(self.durable_mut().clear(*table, prefix, marker, *budget)),
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
                self.durable_mut()
                    .contents
                    .perform(JournalOp::Write(writes.collect()));
                Ok(false)
            }
        }
    }

    fn derived(&self) -> Arc<dyn DerivedRows> {
        Arc::new(MemoryRows {
            durable: Arc::clone(&self.durable),
        })
    }

    fn flushed(&self) -> u64 {
        self.durable().contents.flushed()
    }

    fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes + self.durable().derived_bytes
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader {
            durable: Arc::clone(&self.durable),
        })
    }
}

struct MemoryRows {
    durable: Arc<RwLock<Durable>>,
}

impl DerivedRows for MemoryRows {
    fn apply_rows(&self, writes: Vec<StateWrite>) -> u64 {
        assert_writes(&writes);
        let mut durable = self.durable.write().expect("no holder of the contents panics");
        durable.apply_rows(writes)
    }

    fn unapplied_bytes(&self) -> usize {
        let durable = self.durable.read().expect("no holder of the contents panics");
        durable.derived_bytes
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
