//! From the log to the rows: committed entries are applied in order, many at a time.
//!
//! An entry waits here until it is durable on this node too: what the rows have must be in the log behind them. Then as many
//! as wait are taken together. The versions that their conditions ask about are read; when all are known, the commands are
//! executed one after the other in memory, and what they wrote goes to the store as one effect. So the rows are at all times
//! those of one log position, and the marker among them says which.
//!
//! What an entry says is read once, when it is committed: its conditions are looked up by it, and it is executed by it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, StateWrite, Table};
use quorate_protocol::role::Effect;
use quorate_protocol::shard_command::Command;
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::format::{self, FormatError};
use quorate_raft::group::unreadable;
use quorate_raft::sessions::{Logged, SessionId, Sessions};
use quorate_raft::types::{GroupId, LogIndex, LogPosition};

use crate::shard::rows::{self, Marker};
use crate::shard::server::Server;
use crate::shard::store::Store;
use crate::shard::turn::Turn;

/// So many entries are applied together at most.
const MOST_ENTRIES: usize = 1024;
/// And so many bytes of them, but always one.
const MOST_BYTES: usize = 1 << 20;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Committed {
    position: LogPosition,
    /// Bytes that it has in the log.
    size: usize,
    /// What is to be done; nothing for an entry without a command.
    logged: Option<Logged<Command>>,
}

impl Committed {
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
pub(super) struct Pipeline {
    group: GroupId,
    state: Sessions<Store>,
    applied: LogPosition,
    queue: VecDeque<Committed>,
    /// Of so many entries at the front the conditions are being looked up.
    looking_up: Option<usize>,
    /// The rows that are being read for that.
    lookups: BTreeMap<u64, Bytes>,
    /// The rows are being replaced by those of a snapshot that has everything up to there.
    restoring: Option<LogPosition>,
}

impl Pipeline {
    pub(super) fn new(group: GroupId, state: Sessions<Store>, marker: Marker) -> Self {
        Pipeline {
            group,
            state,
            applied: marker.applied,
            queue: VecDeque::new(),
            looking_up: None,
            lookups: BTreeMap::new(),
            restoring: None,
        }
    }

    /// The last entry that is in the rows.
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
        self.restoring = Some(position);
    }

    /// The rows are those of a snapshot now.
    pub(super) fn restored(&mut self, state: Sessions<Store>, marker: Marker) {
        assert_eq!(
            Some(marker.applied),
            self.restoring.take(),
            "the rows that were loaded are the snapshot's"
        );
        self.state = state;
        self.applied = marker.applied;
    }

    /// Takes entries that are durable, as many as there are, within bounds.
    fn choose(&self, stable: LogIndex) -> usize {
        let mut bytes = 0;
        let durable = self
            .queue
            .iter()
            .take_while(|entry| entry.position.index <= stable);
        let within = durable.take(MOST_ENTRIES).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.size;
            first || bytes <= MOST_BYTES
        });
        within.count()
    }

    /// The rows that must be read before these entries are applied.
    fn unknown(&self, entries: usize) -> BTreeSet<Bytes> {
        let logged = self
            .queue
            .iter()
            .take(entries)
            .filter_map(|entry| entry.logged.as_ref());
        let commands = logged.filter_map(|logged| logged.request.command());
        let store = self.state.machine();
        let asked = commands.flat_map(|command| store.pending(command));
        asked.filter(|row| !store.knows(row)).collect()
    }
}

impl Server {
    /// Applies what can be applied, and answers whoever has waited for that.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>) {
        while self.broken.is_none()
            && !self.pipeline.is_restoring()
            && self.pipeline.lookups.is_empty()
            && !self.reads.must_not_be_disturbed()
        {
            if let Some(count) = self.pipeline.looking_up.take() {
                self.execute(count, turn);
                continue;
            }
            let count = self.pipeline.choose(self.raft.log().stable());
            if count == 0 {
                break;
            }
            let unknown = self.pipeline.unknown(count);
            if unknown.is_empty() {
                self.execute(count, turn);
                continue;
            }
            self.pipeline.looking_up = Some(count);
            for row in unknown {
                let token = self.token();
                self.pipeline.lookups.insert(token, row.clone());
                turn.push(Effect::Read {
                    token,
                    query: Query::Get {
                        table: Table::Groups,
                        key: row,
                    },
                });
            }
        }
        if self.broken.is_none() {
            self.answer_reads(turn);
        }
    }

    /// Whether there is something to apply.
    pub(super) fn has_more(&self) -> bool {
        self.pipeline.choose(self.raft.log().stable()) > 0
    }

    /// Takes the answer of a lookup; gives it back if it is none. When all are there, [`apply`](Self::apply) goes on.
    ///
    /// If the row cannot be read, this server breaks down: without it, it would not do what the others do. Only this one: the
    /// other roles of the node have rows of their own.
    pub(super) fn looked_up(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
    ) -> Option<Result<Rows, Error>> {
        let Some(row) = self.pipeline.lookups.remove(&token) else {
            return Some(result);
        };
        let found = result.and_then(|rows| {
            let value = rows.rows.first().map(|(_, value)| rows::decode_record(value));
            value.transpose()
        });
        match found {
            Ok(record) => {
                let store = self.pipeline.state.machine_mut();
                store.know(row, record.map(|record| record.version));
            }
            Err(error) => {
                self.broken = Some(format!(
                    "a row that a condition asks about cannot be read ({error}): check the disk; the group goes on as long as a \
                     majority of its other members is up"
                ));
            }
        }
        None
    }

    /// Applies so many entries at the front: all that their conditions ask about is known.
    fn execute(&mut self, count: usize, turn: &mut Turn<'_>) {
        let pipeline = &mut self.pipeline;
        let mut touched: BTreeSet<SessionId> = BTreeSet::new();
        let mut resolved = Vec::new();
        for entry in pipeline.queue.drain(..count) {
            let position = entry.position;
            let execute = |store: &mut Store, time, command| store.execute(position, time, command);
            let answer = match entry.logged {
                Some(logged) => Some(pipeline.state.apply_read(position, logged, &mut touched, execute)),
                None => {
                    pipeline.state.skip(position);
                    None
                }
            };
            self.waiting.committed(position, answer.as_ref(), &mut resolved);
            pipeline.applied = position;
        }
        let writes = pipeline.rows(&touched);
        turn.push(Effect::ApplyRows {
            token: pipeline.applied.index.0,
            writes,
        });
        self.resolved(resolved, turn);
    }
}

impl Pipeline {
    /// The rows that have changed, and the marker.
    fn rows(&mut self, touched: &BTreeSet<SessionId>) -> Vec<StateWrite> {
        let group = self.group;
        let mut rows: Vec<(Bytes, Option<Bytes>)> = self.state.machine_mut().take().into_iter().collect();
        for session in touched {
            rows.push((
                rows::session_key(group, *session),
                self.state.session_row(*session),
            ));
        }
        let marker = Marker {
            applied: self.applied,
            clock: self.state.clock(),
        };
        rows.push((rows::marker_key(group), Some(format::encode(&marker))));
        let write = |(key, value)| StateWrite {
            table: Table::Groups,
            key,
            value,
        };
        rows.into_iter().map(write).collect()
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
