//! From the log to the rows: committed entries are applied in order, in batches.
//!
//! Rows must never be ahead of the durable log. So an entry waits here until it is durable on this node too,
//! unless the state is [in memory](Machine::IN_MEMORY): then only its rows wait. All available entries form a
//! batch. The versions that their conditions need are read; when all are known, the commands are executed in
//! memory, one after the other, and their writes go to the store as one effect. So the rows always belong to
//! one log position, which the marker among them records.
//!
//! An entry is decoded once, when it is committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_core::store::{StateWrite, Table};
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::format::{self, FormatError};
use quorate_raft::group::unreadable;
use quorate_raft::sessions::{Logged, SessionId, Sessions};
use quorate_raft::types::{GroupId, LogIndex, LogPosition};
use serde::de::DeserializeOwned;

use crate::host::machine::Machine;
use crate::rows::{self, Marker};

/// The maximum number of entries in a batch.
const MAX_BATCH_ENTRIES: usize = 1024;
/// Their maximum size; one entry is always taken.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The maximum number of batches that wait for the log; beyond it the last two are merged.
const MAX_UNWRITTEN_BATCHES: usize = 16;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Committed<C> {
    pub(super) position: LogPosition,
    /// Its size in the log.
    size: usize,
    /// The request; `None` for an entry without a command.
    pub(super) logged: Option<Logged<C>>,
}

impl<C: DeserializeOwned> Committed<C> {
    fn read(entry: &Entry) -> Result<Self, FormatError> {
        Ok(Committed {
            position: entry.position(),
            size: entry.size(),
            logged: match &entry.kind {
                EntryKind::Command(bytes) => Some(Logged::decode(bytes)?),
                EntryKind::Empty | EntryKind::Configuration(_) => None,
            },
        })
    }
}

/// Entries on their way to the rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pipeline<M: Machine> {
    group: GroupId,
    pub(super) state: Sessions<M>,
    pub(super) applied: LogPosition,
    pub(super) queue: VecDeque<Committed<M::Command>>,
    /// The number of entries at the front whose lookups are in progress.
    pub(super) looking_up: Option<usize>,
    /// The rows that are being read, by token.
    pub(super) lookups: BTreeMap<u64, Bytes>,
    /// Rows of commands executed before the log was durable: one batch per element, by its last entry.
    unwritten: VecDeque<(LogIndex, BTreeMap<Bytes, Option<Bytes>>)>,
    /// The rows are being replaced by those of a snapshot with everything up to here.
    restoring: Option<LogPosition>,
}

impl<M: Machine> Pipeline<M> {
    pub(super) fn new(group: GroupId, state: Sessions<M>, marker: Marker) -> Self {
        Pipeline {
            group,
            state,
            applied: marker.applied,
            queue: VecDeque::new(),
            looking_up: None,
            lookups: BTreeMap::new(),
            unwritten: VecDeque::new(),
            restoring: None,
        }
    }

    /// The state after the last applied entry.
    pub(super) fn machine(&self) -> &M {
        self.state.machine()
    }

    /// The last applied entry.
    pub(super) fn applied(&self) -> LogIndex {
        self.applied.index
    }

    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// Queues committed entries.
    ///
    /// # Errors
    /// If an entry cannot be decoded: the server must stop. Those before it are queued.
    pub(super) fn queue(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let committed = Committed::read(entry).map_err(|error| unreadable(entry.position(), &error))?;
            self.queue.push_back(committed);
        }
        Ok(())
    }

    /// A snapshot with everything up to this position replaces the rows.
    pub(super) fn restore(&mut self, position: LogPosition) {
        self.queue.retain(|entry| entry.position.index > position.index);
        self.looking_up = None;
        self.lookups.clear();
        self.unwritten.clear();
        self.restoring = Some(position);
    }

    /// The rows are now those of a snapshot.
    pub(super) fn restored(&mut self, state: Sessions<M>, marker: Marker) {
        assert_eq!(
            Some(marker.applied),
            self.restoring.take(),
            "the loaded rows are not the snapshot's"
        );
        self.state = state;
        self.applied = marker.applied;
    }

    /// The number of entries that can be executed, within bounds.
    pub(super) fn batch_size(&self, stable: LogIndex) -> usize {
        let mut bytes = 0;
        let ready = self
            .queue
            .iter()
            .take_while(|entry| M::IN_MEMORY || entry.position.index <= stable);
        let within = ready.take(MAX_BATCH_ENTRIES).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.size;
            first || bytes <= MAX_BATCH_BYTES
        });
        within.count()
    }

    /// The rows that must be read before these entries are applied.
    pub(super) fn unknown(&self, entries: usize) -> BTreeSet<Bytes> {
        let logged = self
            .queue
            .iter()
            .take(entries)
            .filter_map(|entry| entry.logged.as_ref());
        let commands = logged.filter_map(|logged| logged.request.command());
        let machine = self.state.machine();
        let required = commands.flat_map(|command| machine.required_rows(command));
        required.filter(|row| !machine.is_known(row)).collect()
    }
}

impl<M: Machine> Pipeline<M> {
    /// Collects the rows that have changed, with the marker; they wait for the log.
    pub(super) fn write(&mut self, touched: &BTreeSet<SessionId>) {
        let group = self.group;
        let mut rows = self.state.machine_mut().take();
        for session in touched {
            rows.insert(
                rows::session_key(group, *session),
                self.state.session_row(*session),
            );
        }
        let marker = Marker {
            applied: self.applied,
            clock: self.state.clock(),
        };
        rows.insert(rows::marker_key(group), Some(format::encode(&marker)));
        if self.unwritten.len() == MAX_UNWRITTEN_BATCHES
            && let Some((_, mut earlier)) = self.unwritten.pop_back()
        {
            earlier.append(&mut rows);
            rows = earlier;
        }
        self.unwritten.push_back((self.applied.index, rows));
    }

    /// Takes rows whose entries are durable here, with their log position.
    pub(super) fn take_durable(&mut self, stable: LogIndex) -> Option<(LogIndex, Vec<StateWrite>)> {
        if self.unwritten.front()?.0 > stable {
            return None;
        }
        let (through, rows) = self.unwritten.pop_front()?;
        let write = |(key, value)| StateWrite {
            table: Table::Groups,
            key,
            value,
        };
        Some((through, rows.into_iter().map(write).collect()))
    }
}
