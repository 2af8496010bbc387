//! The writer of the state: flushes the memtable's rows, in large batches sorted by key.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_core::store::Table;

use super::Shared;
use super::environment::{describe_error, is_map_full};
use super::usage::Full;
use crate::bulk::Bulk;
use crate::error::CommitError;
use crate::frame::{self, Kind};
use crate::memtable::Layer;
use crate::store::{Applier, DerivedRows};

/// The least that a row counts against the budget: in a large table each dirties a page, held in memory until the commit.
const MIN_ROW_BYTES: usize = 512;

/// The half of the store that applies journalled rows. Its write transactions begin and end within one call.
pub struct LmdbApplier {
    shared: Arc<Shared>,
    /// The last applied row of the frozen layer, if the budget ended there.
    done: Option<(Table, Bytes)>,
    /// The position up to which the rows are durable in the state.
    applied: u64,
    /// The last run of derived rows that is durable in the state.
    flushed: u64,
    /// Why the store failed.
    failed: Option<String>,
    scratch: Vec<u8>,
}

impl LmdbApplier {
    pub(super) fn new(shared: Arc<Shared>, applied: u64) -> Self {
        LmdbApplier {
            shared,
            done: None,
            applied,
            flushed: 0,
            failed: None,
            scratch: Vec::new(),
        }
    }

    /// Applies rows of the layer after the last one done; returns where to continue, or `None` at the end.
    ///
    /// Derived rows are applied first and in one transaction, regardless of the budget: they are not in the journal, so a run
    /// must be applied atomically. The others are applied in several steps, so that a layer is applied in part if there is not
    /// enough space for all of it.
    fn apply(&mut self, layer: &Layer, budget: usize) -> heed::Result<Option<(Table, Bytes)>> {
        let shared = Arc::clone(&self.shared);
        let state = &shared.state;
        let mut txn = state.env.write_txn()?;
        let mut spent = 0;
        let order = layer.order();
        let done = self.done.as_ref().map(|(table, _)| *table);
        let first = order.iter().position(|table| Some(*table) == done).unwrap_or(0);
        for table in order.into_iter().skip(first) {
            let start = match &self.done {
                Some((done, key)) if *done == table => Bound::Excluded(key.as_ref()),
                _ => Bound::Unbounded,
            };
            let whole = layer.has_derived(table);
            let mut last = None;
            let database = state.tables[table as usize];
            for (key, value) in layer.table(table).range::<[u8], _>((start, Bound::Unbounded)) {
                if let Some(value) = value {
                    self.scratch.clear();
                    frame::encode(&mut self.scratch, Kind::Row, table as u8, key, value);
                    database.put(&mut txn, key, &self.scratch)?;
                } else {
                    database.delete(&mut txn, key)?;
                }
                let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
                spent += bytes.max(MIN_ROW_BYTES);
                last = Some(key);
                if spent >= budget && !whole {
                    break;
                }
            }
            if spent >= budget
                && !whole
                && let Some(last) = last
            {
                txn.commit()?;
                return Ok(Some((table, last.clone())));
            }
        }
        state.put_applied(&mut txn, layer.through())?;
        txn.commit()?;
        Ok(None)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn has_space(&self, layer: &Layer) -> Result<bool, String> {
        let needed = (self.shared.reserve_bytes / 2).saturating_add(layer.bytes() as u64);
        Ok(self.shared.available_bytes()? >= needed)
    }

    fn full(&self, full: Full) -> CommitError {
        self.shared.state_full.set(full);
        CommitError::Full
    }

    pub(super) fn fail(&mut self, failed: String) -> CommitError {
        self.failed = Some(failed.clone());
        CommitError::Fatal(failed)
    }
}

impl Applier for LmdbApplier {
    fn apply_step(&mut self, budget: usize) -> Result<bool, CommitError> {
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        let Some(layer) = self.shared.memtable_mut().freeze() else {
            return Ok(false);
        };
        match self.has_space(&layer) {
            Ok(true) => {}
            Ok(false) => return Err(self.full(Full::FileSystem)),
            Err(failed) => return Err(self.fail(failed)),
        }
        match self.apply(&layer, budget) {
            Ok(Some(done)) => {
                self.done = Some(done);
                self.flushed = layer.derived().unwrap_or(self.flushed);
                Ok(true)
            }
            Ok(None) => {
                self.done = None;
                // The previous round has now been followed by a sync of the state. A round of derived rows only has no entry:
                // then the last entry stays, by which opening verifies that journal and state belong together.
                if layer.through() > self.applied {
                    self.shared.trimmable.store(self.applied, Ordering::Release);
                    self.applied = layer.through();
                }
                self.flushed = layer.derived().unwrap_or(self.flushed);
                self.shared.state_full.clear();
                let mut memtable = self.shared.memtable_mut();
                let applied = memtable.thaw();
                // Freeing a large layer is slow: not under the lock.
                drop(memtable);
                drop((applied, layer));
                Ok(false)
            }
            Err(error) if is_map_full(&error) => Err(self.full(Full::State)),
            Err(error) => {
                let failed = describe_error("apply to", self.shared.state.path(), error);
                Err(self.fail(failed))
            }
        }
    }

    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        match &self.failed {
            Some(failed) => Err(CommitError::Fatal(failed.clone())),
            None => self.change(change),
        }
    }

    fn derived(&self) -> Arc<dyn DerivedRows> {
        Arc::clone(&self.shared) as _
    }

    fn flushed(&self) -> u64 {
        self.flushed
    }

    fn unapplied_bytes(&self) -> usize {
        self.shared.memtable().bytes()
    }
}
