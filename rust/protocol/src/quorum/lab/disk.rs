//! A disk in memory: rows that are durable, and persists that are not yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::error::Error;
use crate::role::{Query, RoleId, Rows};
use crate::store::{JournalOp, StateWrite, Table};

/// A persist in flight.
#[derive(Clone, Debug)]
pub(in crate::quorum) struct Flight {
    pub(in crate::quorum) role: RoleId,
    pub(in crate::quorum) token: u64,
    pub(in crate::quorum) writes: Vec<StateWrite>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::quorum) struct Disk {
    rows: BTreeMap<(Table, Bytes), Bytes>,
    corrupt: BTreeSet<(Table, Bytes)>,
    pub(in crate::quorum) in_flight: VecDeque<Flight>,
    /// Persists stay in flight until they are told to go on.
    pub(in crate::quorum) held: bool,
    /// Persists are refused.
    pub(in crate::quorum) full: bool,
}

impl Disk {
    pub(super) fn submit(&mut self, role: RoleId, token: u64, writes: Vec<StateWrite>) {
        let same = |flight: &Flight| flight.role == role && flight.token == token;
        let reused = self.in_flight.iter().any(same);
        assert!(!reused, "{role:?} has two persists with token {token} in flight");
        self.in_flight.push_back(Flight { role, token, writes });
    }

    pub(super) fn apply(&mut self, writes: &[StateWrite]) {
        for write in writes {
            let place = (write.table, write.key.clone());
            self.corrupt.remove(&place);
            match &write.value {
                Some(value) => self.rows.insert(place, value.clone()),
                None => self.rows.remove(&place),
            };
        }
    }

    /// Whether there is such a row; it fails its checksum from now on.
    pub(in crate::quorum) fn corrupt(&mut self, table: Table, key: Bytes) -> bool {
        let place = (table, key);
        let there = self.rows.contains_key(&place);
        if there {
            self.corrupt.insert(place);
        }
        there
    }

    /// Whether there was such a row; it cannot be found from now on, as if a bit of its key had flipped.
    pub(in crate::quorum) fn lose(&mut self, table: Table, key: Bytes) -> bool {
        self.rows.remove(&(table, key)).is_some()
    }

    pub(in crate::quorum) fn is_corrupt(&self, table: Table, key: &Bytes) -> bool {
        self.corrupt.contains(&(table, key.clone()))
    }

    /// A row as it was written, checksum or not.
    pub(in crate::quorum) fn row(&self, table: Table, key: &Bytes) -> Option<&Bytes> {
        self.rows.get(&(table, key.clone()))
    }

    /// The keys of a table.
    pub(in crate::quorum) fn keys(&self, table: Table) -> impl Iterator<Item = &Bytes> {
        let rows = self.rows.keys().filter(move |(of, _)| *of == table);
        rows.map(|(_, key)| key)
    }

    pub(super) fn read(&self, query: &Query) -> Result<Rows, Error> {
        let found: Vec<(&(Table, Bytes), &Bytes)> = match query {
            Query::Get { table, key } => self
                .rows
                .get_key_value(&(*table, key.clone()))
                .into_iter()
                .collect(),
            Query::Range {
                table, start, end, ..
            } => {
                assert!(start < end, "a range that ends before it begins");
                self.rows
                    .range((*table, start.clone())..(*table, end.clone()))
                    .collect()
            }
            Query::Hard { .. } | Query::Log { .. } => unreachable!("quorum mode has no log of its own"),
        };
        let (limit_rows, limit_bytes) = match query {
            Query::Get { .. } | Query::Hard { .. } | Query::Log { .. } => (1, u32::MAX),
            Query::Range {
                limit_rows,
                limit_bytes,
                ..
            } => (*limit_rows, *limit_bytes),
        };
        let mut rows = Rows::default();
        let mut bytes = 0;
        for (place, value) in found {
            let (_, key) = place;
            if rows.rows.len() >= limit_rows as usize || bytes >= limit_bytes as usize {
                rows.more = true;
                break;
            }
            if self.corrupt.contains(place) {
                return Err(Error::CorruptRecord("checksum mismatch".to_owned()));
            }
            bytes += key.len() + value.len();
            rows.rows.push((key.clone(), value.clone()));
        }
        Ok(rows)
    }
}

/// The rows of a persist.
pub(super) fn rows(ops: Vec<JournalOp>) -> Vec<StateWrite> {
    let rows = |op| match op {
        JournalOp::Write(rows) => rows,
        other => panic!("no role of the data plane asks for {other:?}"),
    };
    ops.into_iter().flat_map(rows).collect()
}
