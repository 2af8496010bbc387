//! From the log to the rows: committed entries are applied in order, many at a time.
//!
//! What the rows have must be in the log behind them. So an entry waits here until it is durable on this node too, unless the
//! state is one [in memory](Machine::IN_MEMORY): then only its rows wait. As many entries as there are, are taken together. The
//! versions that their conditions ask about are read; when all are known, the commands are executed one after the other in
//! memory, and what they wrote goes to the store as one effect. So the rows are at all times those of one log position, and the
//! marker among them says which.
//!
//! What an entry says is read once, when it is committed: its conditions are looked up by it, and it is executed by it.

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

/// So many entries are applied together at most.
const MOST_ENTRIES: usize = 1024;
/// And so many bytes of them, but always one.
const MOST_BYTES: usize = 1 << 20;
/// So many batches of rows wait for the log at most; then the last two become one.
const MOST_WAITING: usize = 16;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Committed<C> {
    pub(super) position: LogPosition,
    /// Bytes that it has in the log.
    size: usize,
    /// What is to be done; nothing for an entry without a command.
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
    /// Of so many entries at the front the conditions are being looked up.
    pub(super) looking_up: Option<usize>,
    /// The rows that are being read for that.
    pub(super) lookups: BTreeMap<u64, Bytes>,
    /// What was executed before the log was durable that far: the rows of each batch, by its last entry.
    waiting: VecDeque<(LogIndex, BTreeMap<Bytes, Option<Bytes>>)>,
    /// The rows are being replaced by those of a snapshot that has everything up to there.
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
            waiting: VecDeque::new(),
            restoring: None,
        }
    }

    /// The state after the last entry that was applied.
    pub(super) fn machine(&self) -> &M {
        self.state.machine()
    }

    /// The last entry that was applied.
    pub(super) fn applied(&self) -> LogIndex {
        self.applied.index
    }

    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// These are committed.
    ///
    /// # Errors
    /// If one says nothing that this program knows: the server must not go on without it. Those before it are queued.
    pub(super) fn queue(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let committed = Committed::read(entry).map_err(|error| unreadable(entry.position(), &error))?;
            self.queue.push_back(committed);
        }
        Ok(())
    }

    /// A snapshot takes the place of the rows; everything up to there is in it.
    pub(super) fn restore(&mut self, position: LogPosition) {
        self.queue.retain(|entry| entry.position.index > position.index);
        self.looking_up = None;
        self.lookups.clear();
        self.waiting.clear();
        self.restoring = Some(position);
    }

    /// The rows are those of a snapshot now.
    pub(super) fn restored(&mut self, state: Sessions<M>, marker: Marker) {
        assert_eq!(
            Some(marker.applied),
            self.restoring.take(),
            "the rows that were loaded are the snapshot's"
        );
        self.state = state;
        self.applied = marker.applied;
    }

    /// Takes entries that may be executed, as many as there are, within bounds.
    pub(super) fn choose(&self, stable: LogIndex) -> usize {
        let mut bytes = 0;
        let ready = self
            .queue
            .iter()
            .take_while(|entry| M::IN_MEMORY || entry.position.index <= stable);
        let within = ready.take(MOST_ENTRIES).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.size;
            first || bytes <= MOST_BYTES
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
        let asked = commands.flat_map(|command| machine.asks_about(command));
        asked.filter(|row| !machine.knows(row)).collect()
    }
}

impl<M: Machine> Pipeline<M> {
    /// Takes the rows that have changed since the last time, with the marker; they wait for the log.
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
        if self.waiting.len() == MOST_WAITING
            && let Some((_, mut earlier)) = self.waiting.pop_back()
        {
            earlier.append(&mut rows);
            rows = earlier;
        }
        self.waiting.push_back((self.applied.index, rows));
    }

    /// Rows that the log explains, as far as it is durable here; and the entry that they are as of.
    pub(super) fn explained(&mut self, stable: LogIndex) -> Option<(LogIndex, Vec<StateWrite>)> {
        if self.waiting.front()?.0 > stable {
            return None;
        }
        let (through, rows) = self.waiting.pop_front()?;
        let write = |(key, value)| StateWrite {
            table: Table::Groups,
            key,
            value,
        };
        Some((through, rows.into_iter().map(write).collect()))
    }
}
