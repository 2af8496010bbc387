//! Consistent copies of many rows, for files of rows ([`crate::files`]).

use std::ops::Bound;

use heed::RoTxn;
use quorate_core::store::Table;

use super::Shared;
use super::environment::describe_error;
use crate::error::ReadError;
use crate::files::FileError;
use crate::frame::{self, Kind};
use crate::memtable::Rows;
use crate::store::prefix_end;

/// A callback for a row: its key, and its framed value.
pub(crate) type TakeRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), FileError>;

/// Rows that can be copied in a consistent snapshot.
pub(crate) trait View: Send + Sync {
    /// Passes all rows with the prefix in key order to `take`, as of one moment during the call. Rows of the state are passed
    /// as stored, unchecked.
    ///
    /// # Errors
    /// The first error of `take`; [`FileError::Failed`] if the store cannot be read.
    fn copy(&self, table: Table, prefix: &[u8], take: TakeRow<'_>) -> Result<(), FileError>;
}

impl View for Shared {
    fn copy(&self, table: Table, prefix: &[u8], take: TakeRow<'_>) -> Result<(), FileError> {
        let failed = |error| {
            FileError::from(ReadError::Failed(describe_error(
                "read",
                self.state.path(),
                error,
            )))
        };
        let end = prefix_end(prefix);
        let bounds = (
            Bound::Included(prefix),
            end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        );
        // A consistent snapshot: while the memtable is locked, no row can be added or flushed. The frozen layer need not be
        // read under the lock; the active layer is as recent as the round of applying, or new.
        let mut memtable = self.memtable_mut();
        let frozen = memtable.freeze();
        let active = memtable.active_rows(table, bounds);
        let txn: RoTxn<'_, _> = self.state.env.read_txn().map_err(failed)?;
        drop(memtable);

        let empty = Rows::new();
        let frozen = frozen.as_deref().map_or(&empty, |layer| layer.table(table));
        let mut active = active.iter().peekable();
        let mut frozen = frozen.range::<[u8], _>(bounds).peekable();
        // LMDB accepts no empty key, not even as a bound.
        let from = if prefix.is_empty() {
            Bound::Unbounded
        } else {
            bounds.0
        };
        let mut state = self.state.tables[table as usize]
            .range(&txn, &(from, bounds.1))
            .map_err(failed)?;
        let mut under = state.next().transpose().map_err(failed)?;
        let mut framed = Vec::new();
        loop {
            let over = [active.peek().map(|row| row.0), frozen.peek().map(|row| row.0)];
            let over = over.into_iter().flatten().map(AsRef::as_ref).min();
            match (over, under) {
                (None, None) => return Ok(()),
                (over, Some((key, stored))) if over.is_none_or(|over| key < over) => {
                    take(key, stored)?;
                    under = state.next().transpose().map_err(failed)?;
                }
                (over, _) => {
                    let key = over.expect("a row of the memtable is the next");
                    let of_frozen = frozen.next_if(|(frozen, _)| *frozen == key);
                    // The active layer has the newer value.
                    let (key, value) = active
                        .next_if(|(active, _)| *active == key)
                        .or(of_frozen)
                        .expect("one of the layers has the key");
                    if under.is_some_and(|(stored, _)| stored == key) {
                        under = state.next().transpose().map_err(failed)?;
                    }
                    if let Some(value) = value {
                        framed.clear();
                        frame::encode(&mut framed, Kind::Row, table as u8, key, value);
                        take(key, &framed)?;
                    }
                }
            }
        }
    }
}
