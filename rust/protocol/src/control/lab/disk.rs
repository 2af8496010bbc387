//! One node's disk: the control plane's own log and hard states, and what a test has put there for others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::control::CONTROL_GROUP;
use crate::control::known::known_key;
use crate::ids::KeyspaceId;
use crate::quorum::replica::counter_row;
use crate::raft::types::GroupId;
use crate::role::{Event, Query, RoleId, Rows};
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
    /// Urgent writes that roles which have ended had asked for: performed before any that is asked for later.
    pub(super) late: Vec<JournalOp>,
    /// Reads with this token take longer than the test.
    pub(in crate::control) slow: Option<u64>,
    pub(in crate::control) held: bool,
    pub(in crate::control) full: bool,
}

impl Disk {
    /// Does what it was asked for, or refuses it when it is full. What takes away needs no room.
    pub(super) fn perform(&mut self, token: u64, ops: Vec<JournalOp>) -> Event {
        if self.full && !ops.iter().all(JournalOp::takes_away) {
            return Event::PersistRefused { token };
        }
        self.apply(ops);
        Event::Persisted { tokens: vec![token] }
    }

    /// Whether a hard state of this name is on its way.
    pub(in crate::control) fn is_to_keep(&self, name: &Bytes) -> bool {
        let ops = self.flights.iter().flat_map(|(_, _, ops)| ops);
        ops.into_iter()
            .any(|op| matches!(op, JournalOp::PutHard { key, .. } if key == name))
    }

    /// An entry of a group's log is on its way.
    pub(in crate::control) fn delay_entry(&mut self, group: GroupId) {
        self.late.push(JournalOp::Append {
            stream: group.log_stream(),
            position: 1,
            bytes: Bytes::from_static(b"entry"),
        });
    }

    /// Whatever was on its way is there.
    pub(in crate::control) fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.apply(late);
    }

    fn apply(&mut self, ops: Vec<JournalOp>) {
        for op in ops {
            match op {
                JournalOp::PutHard { key, value } => drop(self.hard.insert(key, value)),
                JournalOp::DeleteHard { key } => drop(self.hard.remove(&key)),
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
            Query::Get { table, key } => {
                let value = self.rows.get(&(*table, key.clone())).cloned();
                value.map(|value| (key.clone(), value)).into_iter().collect()
            }
        };
        Rows { rows, more: false }
    }

    /// What the roles of a keyspace and of its groups have left here.
    pub(in crate::control) fn litter(
        &mut self,
        keyspace: KeyspaceId,
        groups: &[GroupId],
        rows: u32,
        entries: u32,
    ) {
        let row = |owner: u32, number: u32| {
            let key = [&owner.to_be_bytes()[..], &number.to_be_bytes()].concat();
            (Bytes::from(key), Bytes::from_static(b"row"))
        };
        for number in 0..rows {
            for table in [Table::Records, Table::TokenIndex] {
                let (key, value) = row(keyspace.0, number);
                self.rows.insert((table, key), value);
            }
            for group in groups {
                let (key, value) = row(group.0, number);
                self.rows.insert((Table::Groups, key), value);
            }
        }
        for group in groups {
            let log = self.streams.entry(group.log_stream()).or_default();
            log.extend((1..=u64::from(entries)).map(|index| (index, Bytes::from_static(b"entry"))));
        }
        self.files.extend(groups.iter().map(|group| u64::from(group.0)));
        let state = Bytes::from_static(b"state");
        for key in groups
            .iter()
            .flat_map(|group| [group.hard_state_key(), group.beginning_key()])
        {
            self.hard.insert(key, state.clone());
        }
        self.rows.insert((Table::Meta, counter_row(keyspace)), state);
    }

    /// How much there is beside the control plane's own: rows, entries, files, states.
    pub(in crate::control) fn left(&self) -> [usize; 4] {
        let others = |(stream, _): &(&StreamId, &BTreeMap<u64, Bytes>)| {
            **stream != CONTROL_GROUP.log_stream() && **stream != CONTROL_GROUP.snapshot_stream()
        };
        let entries = self
            .streams
            .iter()
            .filter(others)
            .map(|(_, entries)| entries.len());
        let own = |key: &&Bytes| {
            let group = [CONTROL_GROUP.hard_state_key(), CONTROL_GROUP.beginning_key()];
            **key == known_key() || group.contains(key)
        };
        let states = self.hard.keys().filter(|key| !own(key)).count();
        [self.rows.len(), entries.sum(), self.files.len(), states]
    }
}
