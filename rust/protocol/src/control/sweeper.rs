//! The sweeper: what a keyspace that was dropped has left on this node's disk goes, a slice at a time.
//!
//! Ids of keyspaces and groups are never given again. So whatever stands under one that the control plane has given and
//! does not have any more belongs to nobody, and may go whenever there is time for it: when the node role has ended the
//! roles that served it, and once more after each start, since a crash may have cut the work short. What is gone already
//! costs a read.
//!
//! Of a group go its files, its rows and its log, in this order: a load of a file that is under way ends before the
//! files go, and puts no rows back. Of a keyspace in quorum mode go the records and their places in the ring. A slice is
//! read, and its rows are deleted by a persist that all others go before; the next slice is not begun until that is durable.
//! The names of hard states stay, a few bytes each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::bugs::Bugs;
use crate::control::bridge::Bridge;
use crate::control::{Control, ControlPlane, DESK_TIMER, KNOWN_SAVE, Turn};
use crate::error::Error;
use crate::files::FileTask;
use crate::ids::KeyspaceId;
use crate::raft::types::GroupId;
use crate::role::{Effect, Event, Query, Rows};
use crate::shard::rows;
use crate::store::{JournalOp, Priority, StateWrite, StreamId, Table};
use crate::time::Instant;

const SWEEP_READ: u64 = Bridge::<ControlPlane>::READ + 1;
const SWEEP_PERSIST: u64 = KNOWN_SAVE + 1;
/// The control plane keeps no files: it has no other.
const SWEEP_FILES: u64 = 0;
const SWEEP_TIMER: u64 = DESK_TIMER + 1;
/// Rows of one slice.
const SLICE_ROWS: u32 = 256;
/// And about so many bytes of them.
const SLICE_BYTES: u32 = 256 << 10;
/// How long a full disk is left alone.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What something may be left of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Gone {
    Group(GroupId),
    Keyspace(KeyspaceId),
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Files(u64),
    Rows(Table),
    Log(StreamId),
}

impl Gone {
    fn parts(self) -> Vec<Part> {
        match self {
            Gone::Group(group) => vec![
                Part::Files(u64::from(group.0)),
                Part::Rows(Table::Groups),
                Part::Log(group.log_stream()),
            ],
            Gone::Keyspace(_) => vec![Part::Rows(Table::Records), Part::Rows(Table::TokenIndex)],
        }
    }

    /// How the keys of its rows begin, and where those of the next one do.
    fn range(self) -> (Bytes, Bytes) {
        let prefix = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        match self {
            Gone::Group(group) => (
                rows::prefix(group),
                rows::prefix(GroupId(group.0.saturating_add(1))),
            ),
            Gone::Keyspace(id) => (prefix(id.0), prefix(id.0.saturating_add(1))),
        }
    }
}

/// What is to be removed, and has been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sweeper {
    /// Everything of this process's time that is left of nothing any more.
    swept: BTreeSet<Gone>,
    /// The parts that are left of each.
    left: BTreeMap<Gone, Vec<Part>>,
    /// Something was asked for and is not answered yet.
    busy: bool,
    /// A deliberate mistake: nothing is removed.
    idle: bool,
}

impl Sweeper {
    /// Nothing is to be removed yet.
    pub(super) fn new(bugs: Bugs) -> Self {
        Sweeper {
            idle: bugs.sweeping_left_out,
            ..Sweeper::default()
        }
    }

    /// Nothing serves these any more.
    pub(super) fn sweep(&mut self, gone: impl Iterator<Item = Gone>, effects: &mut Vec<Effect>) {
        for gone in gone {
            if !self.swept.contains(&gone) {
                self.left.entry(gone).or_insert_with(|| gone.parts());
            }
        }
        self.go_on(effects);
    }

    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        if self.busy || self.idle {
            return;
        }
        while let Some(mut entry) = self.left.first_entry() {
            let gone = *entry.key();
            let Some(part) = entry.get_mut().first().copied() else {
                entry.remove();
                self.swept.insert(gone);
                continue;
            };
            self.busy = true;
            effects.push(Self::look(gone, part));
            return;
        }
    }

    /// Asks what there is of a part; files just go.
    fn look(gone: Gone, part: Part) -> Effect {
        let query = match part {
            Part::Files(owner) => {
                return Effect::Files {
                    token: SWEEP_FILES,
                    task: FileTask::Keep { owner, number: None },
                };
            }
            Part::Rows(table) => {
                let (start, end) = gone.range();
                Query::Range {
                    table,
                    start,
                    end,
                    limit_rows: SLICE_ROWS,
                    limit_bytes: SLICE_BYTES,
                }
            }
            Part::Log(stream) => Query::Log {
                stream,
                from: 0,
                limit_rows: 1,
                limit_bytes: 1,
            },
        };
        Effect::Read {
            token: SWEEP_READ,
            query,
        }
    }

    fn part_ended(&mut self) {
        if let Some(mut entry) = self.left.first_entry() {
            entry.get_mut().remove(0);
        }
    }

    /// This is what there is. What cannot be read stays, and is looked at after the next start.
    fn read(&mut self, result: Result<Rows, Error>, effects: &mut Vec<Effect>) {
        self.busy = false;
        let found = result.unwrap_or_default().rows;
        let part = self
            .left
            .first_key_value()
            .and_then(|(_, parts)| parts.first().copied());
        let op = match part {
            Some(Part::Rows(table)) if !found.is_empty() => {
                let delete = |(key, _)| StateWrite {
                    table,
                    key,
                    value: None,
                };
                JournalOp::Write(found.into_iter().map(delete).collect())
            }
            Some(Part::Log(stream)) if !found.is_empty() => JournalOp::Truncate { stream, from: 0 },
            _ => {
                self.part_ended();
                return self.go_on(effects);
            }
        };
        self.busy = true;
        effects.push(Effect::Persist {
            token: SWEEP_PERSIST,
            priority: Priority::Bulk,
            ops: vec![op],
        });
    }

    /// A slice is gone: the next one.
    fn persisted(&mut self, effects: &mut Vec<Effect>) {
        self.busy = false;
        self.go_on(effects);
    }

    /// There is no room to note that something is gone.
    fn refused(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        effects.push(Effect::SetTimer {
            id: SWEEP_TIMER,
            at: now + FULL_PAUSE,
        });
    }

    /// The files are gone, or cannot be removed: then they are after the next start.
    fn files_gone(&mut self, effects: &mut Vec<Effect>) {
        self.busy = false;
        self.part_ended();
        self.go_on(effects);
    }
}

impl Control {
    /// Goes on with what was swept, if it is an answer to that.
    pub(super) fn sweep_on(&mut self, event: &Event, turn: &mut Turn<'_>) {
        let (sweeper, effects) = (&mut self.sweeper, &mut *turn.effects);
        match event {
            Event::Read {
                token: SWEEP_READ,
                result,
            } => sweeper.read(result.clone(), effects),
            Event::Persisted { tokens } if tokens.contains(&SWEEP_PERSIST) => sweeper.persisted(effects),
            Event::PersistRefused { token: SWEEP_PERSIST } => sweeper.refused(turn.now.instant, effects),
            Event::Timer { id: SWEEP_TIMER } => sweeper.persisted(effects),
            Event::Files {
                token: SWEEP_FILES, ..
            } => sweeper.files_gone(effects),
            _ => {}
        }
    }
}
