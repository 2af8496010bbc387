//! What a store holds, in memory: tables of rows, streams of entries, hard states.
//!
//! The in-memory store of simulated nodes is made of it, and the disks of tests are. It is one moment's contents, and knows
//! nothing of commits: who holds it decides when an operation counts. Rows that were [derived](Contents::derive) are seen at
//! once, run by run, and a crash takes the runs that have not [flushed](Contents::flush).

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
    /// What stands under the rows of each run that a crash would take, the oldest run first.
    under: VecDeque<BTreeMap<(Table, Bytes), Option<Bytes>>>,
    runs: u64,
}

/// A row that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Of which table.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
}

/// Rows in key order, and where the next ones begin if there are more.
pub type Page = (Vec<(Bytes, Bytes)>, Option<Bytes>);

impl Contents {
    // ---- what changes ----

    /// Performs an operation of a commit.
    pub fn perform(&mut self, op: JournalOp) {
        match op {
            JournalOp::Write(writes) => writes.into_iter().for_each(|write| {
                let place = (write.table, write.key.clone());
                // From now on this is what a crash leaves.
                for run in &mut self.under {
                    run.remove(&place);
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

    /// Shows the rows of a run; gives its number, which counts from 1.
    pub fn apply_rows(&mut self, writes: Vec<StateWrite>) -> u64 {
        let mut under = BTreeMap::new();
        for write in writes {
            let place = (write.table, write.key.clone());
            let before = self.value(write.table, &write.key).cloned();
            under.entry(place).or_insert(before);
            self.write(write);
        }
        self.under.push_back(under);
        self.runs += 1;
        self.runs
    }

    /// How many runs were derived since the last crash.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// The last run that a crash leaves.
    pub fn flushed(&self) -> u64 {
        self.runs - self.under.len() as u64
    }

    /// A crash leaves the runs up to this one.
    pub fn flush(&mut self, through: u64) {
        let count = through.saturating_sub(self.flushed()) as usize;
        self.under.drain(..count.min(self.under.len()));
    }

    /// Takes back the runs that are not flushed, as a crash does.
    pub fn forget_derived(&mut self) {
        // The oldest last: it says what is on disk.
        while let Some(run) = self.under.pop_back() {
            for ((table, key), value) in run {
                self.write(StateWrite { table, key, value });
            }
        }
        self.runs = 0;
    }

    /// Makes a row unreadable, as a byte that rots would, until it is written again.
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

    // ---- what there is ----

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value of a row as it was written, readable or not.
    pub fn value(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.tables[table as usize].get(key)
    }

    /// Whether a row is not what was written.
    pub fn is_corrupt(&self, table: Table, key: &Bytes) -> bool {
        !self.corrupt.is_empty() && self.corrupt.contains(&(table, key.clone()))
    }

    /// The rows from `start` on, in key order, as they were written, readable or not.
    pub fn rows_from(&self, table: Table, start: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.tables[table as usize].range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
    }

    /// The value of a row.
    ///
    /// # Errors
    /// It is not what was written.
    pub fn get(&self, table: Table, key: &Bytes) -> Result<Option<Bytes>, Unreadable> {
        let value = self.value(table, key);
        value.map(|value| self.readable(table, key, value)).transpose()
    }

    /// The rows from `start` (included) to `end` (excluded), at most so many rows and about so many bytes, at least one row. The
    /// page ends before a row that is not what was written.
    ///
    /// # Errors
    /// The first row is not what was written.
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

    /// The names of the hard states.
    pub fn hard_states(&self) -> impl Iterator<Item = &Bytes> {
        self.hard.keys()
    }

    /// Entries of a stream from a position on, at most so many and about so many bytes, at least one.
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

    /// The streams, with how many entries each has.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, usize)> {
        self.streams.iter().map(|(stream, log)| (*stream, log.len()))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The first row is not what was written.
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
