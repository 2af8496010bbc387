//! Reads: the memtable over the state, and the journal's entries. Each is a short transaction.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::store::{StreamId, Table};

use super::Shared;
use super::coding::{self, EntryRange, JOURNAL_TAG};
use super::environment::describe_error;
use crate::error::ReadError;
use crate::frame::{self, Kind};
use crate::limits::{MAX_HARD_KEY_BYTES, MAX_KEY_BYTES};
use crate::memtable::merge;
use crate::store::{Bounds, Page, Reader, assert_stream};

/// The least number of memtable rows that a page reads, among which may be many deleted ones.
const MEMTABLE_ROWS: usize = 256;

pub(super) struct LmdbReader {
    shared: Arc<Shared>,
}

impl LmdbReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        LmdbReader { shared }
    }

    /// A consistent page of the range's beginning, with at most `memtable_rows` rows of the memtable. May be empty although
    /// the range is not.
    fn page(
        &self,
        table: Table,
        (start, end): (&[u8], Option<&[u8]>),
        memtable_rows: usize,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError> {
        let state = &self.shared.state;
        let failed = failed(state.path());
        // A consistent snapshot of memtable and state: no row can be flushed before the state is pinned.
        let memtable = self.shared.memtable();
        let (rows, complete_before) = memtable.range(table, start, end, memtable_rows);
        let txn = state.env.read_txn().map_err(failed)?;
        drop(memtable);
        // LMDB accepts no empty key, not even as a bound.
        let from = if start.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(start)
        };
        let bounds = (from, end.map_or(Bound::Unbounded, Bound::Excluded));
        let stored = state.tables[table as usize]
            .range(&txn, &bounds)
            .map_err(failed)?;
        merge(
            rows,
            complete_before,
            stored.map(|row| row.map_err(failed)),
            |key, stored| value_of(table, key, stored),
            limit_rows,
            limit_bytes,
        )
    }
}

/// Converts an error of LMDB, with the file's name.
fn failed(path: &Path) -> impl Fn(heed::Error) -> ReadError + Copy + '_ {
    move |error| ReadError::Failed(describe_error("read", path, error))
}

/// The value of a row of the state.
fn value_of(table: Table, key: &[u8], stored: &[u8]) -> Result<Bytes, ReadError> {
    match frame::decode(Kind::Row, table as u8, key, stored) {
        Ok(value) => Ok(Bytes::copy_from_slice(value)),
        Err(why) => Err(ReadError::Corrupt {
            table,
            key: Bytes::copy_from_slice(key),
            why,
        }),
    }
}

impl Reader for LmdbReader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        // A row leaves the memtable only after the state has it: reading the memtable first misses nothing.
        let found = self.shared.memtable().get(table, key);
        if let Some(value) = found {
            return Ok(value);
        }
        let state = &self.shared.state;
        let failed = failed(state.path());
        let txn = state.env.read_txn().map_err(failed)?;
        let stored = state.tables[table as usize].get(&txn, key).map_err(failed)?;
        stored.map(|stored| value_of(table, key, stored)).transpose()
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(Page::default());
        }
        let mut memtable_rows = limit_rows.max(MEMTABLE_ROWS);
        loop {
            let page = self.page(table, (start, end), memtable_rows, limit_rows, limit_bytes)?;
            if !page.rows.is_empty() || page.next.is_none() {
                return Ok(page);
            }
            // Only deleted rows so far. The rows behind them must be read in the same snapshot: retry with more rows.
            memtable_rows = memtable_rows.saturating_mul(4);
        }
    }

    fn get_hard(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        if key.is_empty() || key.len() > MAX_HARD_KEY_BYTES {
            return Ok(None);
        }
        let place = coding::hard_key(key);
        let journal = &self.shared.journal;
        let failed = failed(journal.path());
        let txn = journal.env.read_txn().map_err(failed)?;
        let Some(stored) = journal.entries.get(&txn, &place).map_err(failed)? else {
            return Ok(None);
        };
        match frame::decode(Kind::Hard, JOURNAL_TAG, &place, stored) {
            Ok(value) => Ok(Some(Bytes::copy_from_slice(value))),
            Err(why) => Err(ReadError::CorruptHard {
                key: Bytes::copy_from_slice(key),
                why,
            }),
        }
    }

    fn log(
        &self,
        stream: StreamId,
        from: u64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        assert_stream(stream);
        let journal = &self.shared.journal;
        let failed = failed(journal.path());
        let txn = journal.env.read_txn().map_err(failed)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let range = EntryRange::new(stream, from, u64::MAX);
        for entry in journal.entries.range(&txn, &range).map_err(failed)? {
            let (key, stored) = entry.map_err(failed)?;
            let position = position_of(key)?;
            let content = match frame::decode(Kind::Entry, JOURNAL_TAG, key, stored) {
                Ok(content) => content,
                Err(_) if !entries.is_empty() => break,
                Err(why) => {
                    return Err(ReadError::CorruptEntry {
                        stream,
                        position,
                        why,
                    });
                }
            };
            if !entries.is_empty() && (entries.len() >= limit_rows || bytes + content.len() > limit_bytes) {
                break;
            }
            bytes += content.len();
            entries.push((position, Bytes::copy_from_slice(content)));
        }
        Ok(entries)
    }

    fn log_bounds(&self, stream: StreamId) -> Result<Option<Bounds>, ReadError> {
        assert_stream(stream);
        let journal = &self.shared.journal;
        let failed = failed(journal.path());
        let txn = journal.env.read_txn().map_err(failed)?;
        let range = EntryRange::new(stream, 0, u64::MAX);
        let first = journal.entries.range(&txn, &range).map_err(failed)?.next();
        let last = journal.entries.rev_range(&txn, &range).map_err(failed)?.next();
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(None);
        };
        let first = position_of(first.map_err(failed)?.0)?;
        let last = position_of(last.map_err(failed)?.0)?;
        Ok(Some(Bounds { first, last }))
    }
}

fn position_of(key: &[u8]) -> Result<u64, ReadError> {
    coding::entry_position(key).ok_or_else(|| ReadError::Failed("an entry has a malformed key".to_owned()))
}
