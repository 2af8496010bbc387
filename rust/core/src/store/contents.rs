//! The contents of a store, in memory: tables of rows, streams of entries, hard states.
//!
//! The in-memory store of simulated nodes and the disks of tests are built on it. It has no commits: its
//! owner decides when an operation takes effect. Rows that were [applied](Contents::apply_rows) are visible at
//! once, batch by batch, and a crash drops the batches that have not been [flushed](Contents::flush).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::store::{JournalOp, Query, Rows, StateWrite, StreamId, Table};

const TABLES: usize = Table::Groups as usize + 1;

/// The contents of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contents {
    tables: [BTreeMap<Bytes, Bytes>; TABLES],
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    hard: BTreeMap<Bytes, Bytes>,
    corrupt: BTreeSet<(Table, Bytes)>,
    bytes: usize,
    /// The rows below each unflushed batch, which a crash restores, the oldest batch first.
    under: VecDeque<BTreeMap<(Table, Bytes), Option<Bytes>>>,
    batches: u64,
}

/// A damaged row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
}

/// Rows in key order, and the start of the next page if there are more.
pub type Page = (Vec<(Bytes, Bytes)>, Option<Bytes>);

impl Contents {
    // ---- changes ----

    /// Performs an operation of a commit.
    pub fn perform(&mut self, op: JournalOp) {
        match op {
            JournalOp::Write(writes) => writes.into_iter().for_each(|write| {
                let place = (write.table, write.key.clone());
                // From now on a crash restores this.
                for batch in &mut self.under {
                    batch.remove(&place);
                }
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

    /// Applies the rows of a batch; returns its number, which counts from 1.
    pub fn apply_rows(&mut self, writes: Vec<StateWrite>) -> u64 {
        let mut under = BTreeMap::new();
        for write in writes {
            let place = (write.table, write.key.clone());
            let before = self.value(write.table, &write.key).cloned();
            under.entry(place).or_insert(before);
            self.write(write);
        }
        self.under.push_back(under);
        self.batches += 1;
        self.batches
    }

    /// The number of batches since the last crash.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The last flushed batch.
    pub fn flushed(&self) -> u64 {
        self.batches - self.under.len() as u64
    }

    /// Marks the batches up to this one as flushed.
    pub fn flush(&mut self, through: u64) {
        let count = through.saturating_sub(self.flushed()) as usize;
        self.under.drain(..count.min(self.under.len()));
    }

    /// Drops the unflushed batches, as a crash does.
    pub fn drop_unflushed(&mut self) {
        // The oldest last: it has what is on disk.
        while let Some(batch) = self.under.pop_back() {
            for ((table, key), value) in batch {
                self.write(StateWrite { table, key, value });
            }
        }
        self.batches = 0;
    }

    /// Damages a row, until it is written again.
    pub fn corrupt(&mut self, table: Table, key: Bytes) {
        self.corrupt.insert((table, key));
    }

    fn write(&mut self, StateWrite { table, key, value }: StateWrite) {
        if !self.corrupt.is_empty() {
            self.corrupt.remove(&(table, key.clone()));
        }
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

    // ---- queries ----

    /// The size of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value of a row as it was written, damaged or not.
    pub fn value(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.tables[table as usize].get(key)
    }

    /// Whether a row is damaged.
    pub fn is_corrupt(&self, table: Table, key: &Bytes) -> bool {
        !self.corrupt.is_empty() && self.corrupt.contains(&(table, key.clone()))
    }

    /// The rows from `start` on, in key order, as they were written, damaged or not.
    pub fn rows_from(&self, table: Table, start: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.tables[table as usize].range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
    }

    /// The value of a row.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn get(&self, table: Table, key: &Bytes) -> Result<Option<Bytes>, Unreadable> {
        let value = self.value(table, key);
        value.map(|value| self.readable(table, key, value)).transpose()
    }

    /// The rows from `start` (inclusive) to `end` (exclusive), at most `limit_rows` rows and about
    /// `limit_bytes` bytes, at least one row. The page ends before a damaged row.
    ///
    /// # Errors
    /// The first row is damaged.
    pub fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, Unreadable> {
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        if end.is_some_and(|end| end <= start) {
            return Ok((rows, None));
        }
        let found = self.rows_from(table, start);
        let mut bytes = 0;
        for (key, value) in found.take_while(|(key, _)| end.is_none_or(|end| &key[..] < end)) {
            let full = rows.len() >= limit_rows || bytes + key.len() + value.len() > limit_bytes;
            match self.readable(table, key, value) {
                Err(error) if rows.is_empty() => return Err(error),
                Ok(value) if rows.is_empty() || !full => {
                    bytes += key.len() + value.len();
                    rows.push((key.clone(), value));
                }
                _ => return Ok((rows, Some(key.clone()))),
            }
        }
        Ok((rows, None))
    }

    fn readable(&self, table: Table, key: &Bytes, value: &Bytes) -> Result<Bytes, Unreadable> {
        match self.is_corrupt(table, key) {
            false => Ok(value.clone()),
            true => Err(Unreadable {
                table,
                key: key.clone(),
            }),
        }
    }

    /// A hard state.
    pub fn hard(&self, key: &[u8]) -> Option<Bytes> {
        self.hard.get(key).cloned()
    }

    /// The keys of the hard states.
    pub fn hard_states(&self) -> impl Iterator<Item = &Bytes> {
        self.hard.keys()
    }

    /// Entries of a stream from a position on, within both limits, at least one.
    pub fn log(
        &self,
        stream: StreamId,
        from: u64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Vec<(u64, Bytes)> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let found = self.streams.get(&stream).into_iter();
        for (position, entry) in found.flat_map(|log| log.range(from..)) {
            if !entries.is_empty() && (entries.len() >= limit_rows || bytes + entry.len() > limit_bytes) {
                break;
            }
            bytes += entry.len();
            entries.push((*position, entry.clone()));
        }
        entries
    }

    /// The first and last position of a stream, if it has entries.
    pub fn log_bounds(&self, stream: StreamId) -> Option<(u64, u64)> {
        let log = self.streams.get(&stream)?;
        let ((first, _), (last, _)) = log.first_key_value().zip(log.last_key_value())?;
        Some((*first, *last))
    }

    /// The streams, with their numbers of entries.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, usize)> {
        self.streams.iter().map(|(stream, log)| (*stream, log.len()))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The first row is damaged.
    pub fn answer(&self, query: &Query) -> Result<Rows, Unreadable> {
        let single = |key: &Bytes, value: Option<Bytes>| Rows {
            rows: value.map(|value| (key.clone(), value)).into_iter().collect(),
            more: false,
        };
        Ok(match query {
            Query::Get { table, key } => single(key, self.get(*table, key)?),
            Query::Hard { key } => single(key, self.hard(key)),
            Query::Range {
                table,
                start,
                end,
                limit_rows,
                limit_bytes,
            } => {
                let (limit_rows, limit_bytes) = (*limit_rows as usize, *limit_bytes as usize);
                let (rows, next) = self.range(*table, start, Some(end), limit_rows, limit_bytes)?;
                Rows {
                    rows,
                    more: next.is_some(),
                }
            }
            Query::Log {
                stream,
                from,
                limit_rows,
                limit_bytes,
            } => {
                let entries = self.log(*stream, *from, *limit_rows as usize, *limit_bytes as usize);
                let last = entries.last().map(|(position, _)| *position);
                let end = self.log_bounds(*stream).map(|(_, last)| last);
                let row = |(position, entry): (u64, Bytes)| {
                    (Bytes::copy_from_slice(&position.to_be_bytes()), entry)
                };
                Rows {
                    rows: entries.into_iter().map(row).collect(),
                    more: last.is_some() && last < end,
                }
            }
        })
    }
}
