//! One node's disk: the control plane's own log and hard states, and what a test has put there for others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::control::CONTROL_GROUP;
use crate::ids::KeyspaceId;
use crate::raft::types::GroupId;
use crate::role::{Query, RoleId, Rows};
use crate::store::{JournalOp, StreamId, Table};

/// One node's disk.
#[derive(Default)]
pub(in crate::control) struct Disk {
    hard: BTreeMap<Bytes, Bytes>,
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    rows: BTreeMap<(Table, Bytes), Bytes>,
    /// Whose files there are.
    pub(super) files: BTreeSet<u64>,
    /// It performs so many requests in the background, and then no more.
    pub(in crate::control) slices: Option<u64>,
    pub(super) flights: VecDeque<(RoleId, u64, Vec<JournalOp>)>,
    pub(in crate::control) held: bool,
    pub(in crate::control) full: bool,
}

impl Disk {
    pub(super) fn apply(&mut self, ops: Vec<JournalOp>) {
        for op in ops {
            match op {
                JournalOp::PutHard { key, value } => drop(self.hard.insert(key, value)),
                JournalOp::Append {
                    stream,
                    position,
                    bytes,
                } => drop(self.streams.entry(stream).or_default().insert(position, bytes)),
                JournalOp::Truncate { stream, from } => {
                    self.streams.entry(stream).or_default().split_off(&from);
                }
                JournalOp::Trim { stream, through } => {
                    let entries = self.streams.entry(stream).or_default();
                    *entries = entries.split_off(&(through + 1));
                }
                JournalOp::Write(writes) => {
                    for write in writes {
                        assert_eq!(write.value, None, "the control plane only deletes rows");
                        self.rows.remove(&(write.table, write.key));
                    }
                }
            }
        }
    }

    pub(super) fn read(&self, query: &Query) -> Rows {
        let rows = match query {
            Query::Hard { key } => {
                let value = self.hard.get(key).cloned();
                value.map(|value| (key.clone(), value)).into_iter().collect()
            }
            Query::Log { stream, from, .. } => {
                let entries = self
                    .streams
                    .get(stream)
                    .into_iter()
                    .flat_map(|entries| entries.range(from..));
                let row = |(position, bytes): (&u64, &Bytes)| {
                    (Bytes::copy_from_slice(&position.to_be_bytes()), bytes.clone())
                };
                entries.map(row).collect()
            }
            Query::Range {
                table,
                start,
                end,
                limit_rows,
                ..
            } => {
                let range = (*table, start.clone())..(*table, end.clone());
                let rows = self.rows.range(range).take(*limit_rows as usize);
                rows.map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect()
            }
            Query::Get { .. } => panic!("the control plane does not read {query:?}"),
        };
        Rows { rows, more: false }
    }

    /// What the roles of a keyspace and of its groups have left here.
    pub(in crate::control) fn litter(&mut self, keyspace: KeyspaceId, groups: &[GroupId], count: u32) {
        let row = |owner: u32, number: u32| {
            let key = [&owner.to_be_bytes()[..], &number.to_be_bytes()].concat();
            (Bytes::from(key), Bytes::from_static(b"row"))
        };
        for number in 0..count {
            for table in [Table::Records, Table::TokenIndex] {
                let (key, value) = row(keyspace.0, number);
                self.rows.insert((table, key), value);
            }
            for group in groups {
                let (key, value) = row(group.0, number);
                self.rows.insert((Table::Groups, key), value);
                let log = self.streams.entry(group.log_stream()).or_default();
                log.insert(u64::from(number) + 1, Bytes::from_static(b"entry"));
            }
        }
        self.files.extend(groups.iter().map(|group| u64::from(group.0)));
    }

    /// How much there is beside the control plane's own: rows, entries, files.
    pub(in crate::control) fn left(&self) -> (usize, usize, usize) {
        let others = |(stream, _): &(&StreamId, &BTreeMap<u64, Bytes>)| {
            **stream != CONTROL_GROUP.log_stream() && **stream != CONTROL_GROUP.snapshot_stream()
        };
        let entries = self
            .streams
            .iter()
            .filter(others)
            .map(|(_, entries)| entries.len());
        (self.rows.len(), entries.sum(), self.files.len())
    }
}
