//! A disk in memory whose every write becomes durable only when it is told so.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::role::{Query, Rows};
use crate::store::{JournalOp, Priority, StreamId};

/// A persist that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Flight {
    pub(in crate::raft) token: u64,
    priority: Priority,
    pub(in crate::raft) ops: Vec<JournalOp>,
}

/// One node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Disk {
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    hard: BTreeMap<Bytes, Bytes>,
    pub(in crate::raft) flights: VecDeque<Flight>,
    /// It answers only when told to.
    pub(in crate::raft) held: bool,
    /// It refuses everything.
    pub(in crate::raft) full: bool,
}

impl Disk {
    pub(in crate::raft) fn submit(&mut self, token: u64, priority: Priority, ops: Vec<JournalOp>) {
        self.flights.push_back(Flight { token, priority, ops });
    }

    /// Urgent requests first, each priority in its order.
    pub(in crate::raft) fn next(&mut self) -> Option<Flight> {
        let urgent = self
            .flights
            .iter()
            .position(|flight| flight.priority != Priority::Bulk);
        self.flights.remove(urgent.unwrap_or(0))
    }

    pub(in crate::raft) fn apply(&mut self, ops: &[JournalOp]) {
        for op in ops {
            match op {
                JournalOp::Append {
                    stream,
                    position,
                    bytes,
                } => drop(
                    self.streams
                        .entry(*stream)
                        .or_default()
                        .insert(*position, bytes.clone()),
                ),
                JournalOp::Truncate { stream, from } => {
                    self.streams.entry(*stream).or_default().split_off(from);
                }
                JournalOp::Trim { stream, through } => {
                    let entries = self.streams.entry(*stream).or_default();
                    *entries = entries.split_off(&(through + 1));
                }
                JournalOp::PutHard { key, value } => drop(self.hard.insert(key.clone(), value.clone())),
                JournalOp::DeleteHard { key } => drop(self.hard.remove(key)),
                JournalOp::Write(_) => panic!("a group writes no rows"),
            }
        }
    }

    /// How many entries a stream has.
    pub(in crate::raft) fn entries(&self, stream: StreamId) -> usize {
        self.streams.get(&stream).map_or(0, BTreeMap::len)
    }

    /// A byte of an entry rots, or it is lost: whatever is there now.
    pub(in crate::raft) fn lose(&mut self, stream: StreamId, position: u64) {
        self.streams.entry(stream).or_default().remove(&position);
    }

    pub(in crate::raft) fn read(&self, query: &Query) -> Rows {
        let rows = match query {
            Query::Hard { key } => self
                .hard
                .get(key)
                .map(|value| (key.clone(), value.clone()))
                .into_iter()
                .collect(),
            Query::Log {
                stream,
                from,
                limit_bytes,
                ..
            } => {
                let mut bytes = 0;
                let entries = self.streams.get(stream);
                let entries = entries.into_iter().flat_map(|entries| entries.range(from..));
                let page = entries.take_while(|(_, entry)| {
                    let first = bytes == 0;
                    bytes += entry.len();
                    first || bytes <= *limit_bytes as usize
                });
                let key = |position: &u64| Bytes::copy_from_slice(&position.to_be_bytes());
                page.map(|(position, entry)| (key(position), entry.clone()))
                    .collect()
            }
            rows => panic!("a group reads no rows: {rows:?}"),
        };
        Rows { rows, more: false }
    }
}
