//! Changes of the state that bypass journal and memtable, for loading a file of rows.
//!
//! Each is a transaction, durable when it returns. Unapplied rows are not changed, so a load starts by flushing them.

use std::ops::Bound;

use quorate_core::store::Table;

use super::applier::LmdbApplier;
use super::environment::{describe_error, is_map_full};
use crate::bulk::Bulk;
use crate::error::CommitError;
use crate::files::SLICE_BYTES;
use crate::files::format::Slice;
use crate::store::{Applier, prefix_end};

/// The least that a row counts: removing it costs about as much as that many bytes.
const MIN_ROW_BYTES: usize = 64;

impl LmdbApplier {
    /// Makes the change; see [`Store::bulk`](crate::store::Store::bulk).
    pub(super) fn change(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        match change {
            Bulk::Flush => self.flush().map(|()| false),
            Bulk::Clear {
                table,
                prefix,
                marker,
                budget,
            } => {
                let cleared = self.clear(*table, prefix, marker, *budget);
                self.check_write(cleared)
            }
            Bulk::Put { table, rows } => {
                if !self.has_room_for(rows)? {
                    return Err(CommitError::Full);
                }
                let put = self.put(*table, rows);
                self.check_write(put.map(|()| false))
            }
        }
    }

    /// Two rounds: the first may be one that was started before, the second has the rest.
    fn flush(&mut self) -> Result<(), CommitError> {
        for _ in 0..2 {
            while self.apply_step(SLICE_BYTES)? {}
        }
        Ok(())
    }

    fn clear(&mut self, table: Table, prefix: &[u8], marker: &[u8], budget: usize) -> heed::Result<bool> {
        let shared = self.shared();
        let database = shared.state.tables[table as usize];
        let mut txn = shared.state.env.write_txn()?;
        database.delete(&mut txn, marker)?;
        let end = prefix_end(prefix);
        // LMDB accepts no empty key, not even as a bound.
        let from = if prefix.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(prefix)
        };
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut spent = 0;
        let mut rest: Option<Vec<u8>> = None;
        for row in database.range(&txn, &(from, to))? {
            let (key, stored) = row?;
            if spent >= budget.max(1) {
                rest = Some(key.to_owned());
                break;
            }
            spent += (key.len() + stored.len()).max(MIN_ROW_BYTES);
        }
        let to = rest.as_deref().map_or(to, Bound::Excluded);
        database.delete_range(&mut txn, &(from, to))?;
        txn.commit()?;
        Ok(rest.is_some())
    }

    fn put(&mut self, table: Table, rows: &Slice) -> heed::Result<()> {
        let shared = self.shared();
        let database = shared.state.tables[table as usize];
        let mut txn = shared.state.env.write_txn()?;
        for (key, framed) in rows.borrowed() {
            database.put(&mut txn, key, framed)?;
        }
        txn.commit()
    }

    fn has_room_for(&mut self, rows: &Slice) -> Result<bool, CommitError> {
        let shared = self.shared();
        let needed = shared.reserve_bytes.saturating_add(rows.bytes() as u64);
        match shared.available_bytes() {
            Ok(available) => Ok(available >= needed),
            Err(failed) => Err(self.fail(failed)),
        }
    }

    fn check_write(&mut self, changed: heed::Result<bool>) -> Result<bool, CommitError> {
        match changed {
            Ok(more) => Ok(more),
            Err(error) if is_map_full(&error) => Err(CommitError::Full),
            Err(error) => {
                let failed = describe_error("load rows into", self.shared().state.path(), error);
                Err(self.fail(failed))
            }
        }
    }
}
