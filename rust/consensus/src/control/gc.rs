//! The garbage collector: what a keyspace that was dropped has left on this node's disk goes, a slice at a time.
//!
//! Ids of keyspaces and groups are never given again. So whatever stands under one that the control plane has given and
//! does not have any more belongs to nobody, and may go once no role will ever look for it: when the node role has ended the
//! roles that served it *and* the state without it is durable, since a node that started with an earlier one would start
//! them again ([`known`](super::known)). And once more after each start, since a crash may have cut the work short. What is
//! gone already costs a few reads.
//!
//! # What is still on its way
//! A role that has ended may have asked for things that are not done yet, and reads see only what is. So first the garbage collector
//! waits for all writes that were asked for before: the store performs those of one priority in order, and one without any
//! operation is behind all others of its priority (the fence). A load of a file ends before the files go, and puts no rows
//! back, since tasks with the files of one owner are performed in order too.
//!
//! Of a group go its files, its rows and its log, in this order. Of a keyspace in quorum mode go the records and their
//! places in the ring. A slice is read, and its rows are deleted in the background; the next slice is not begun until that
//! is durable. The small states last: a server's vote and where its log begins, a replica's reserved numbers. No server or
//! replica of this name starts again, so nobody can break what they promise.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::error::Error;
use quorate_core::files::FileTask;
use quorate_core::key::counter_row;
use quorate_core::store::{JournalOp, Priority, Query, Rows, StateWrite, StreamId, Table};
use quorate_core::time::Instant;
use quorate_protocol::role::{Effect, Event};
use quorate_raft::types::GroupId;

use crate::control::Control;
use crate::control::known::{FULL_PAUSE, KNOWN_SAVE, KNOWN_TIMERS_END};
use crate::control::state::Gone;
use crate::host::OWN_TOKENS;
use crate::rows;
use crate::turn::Turn;

const SWEEP_READ: u64 = OWN_TOKENS + 1;
const SWEEP_PERSIST: u64 = KNOWN_SAVE + 1;
/// A fence has a persist of each priority.
const FENCES: [(u64, Priority); 3] = [
    (KNOWN_SAVE + 2, Priority::Urgent),
    (KNOWN_SAVE + 3, Priority::Normal),
    (KNOWN_SAVE + 4, Priority::Bulk),
];
/// The control plane keeps no files: it has no other.
const SWEEP_FILES: u64 = OWN_TOKENS;
const SWEEP_TIMER: u64 = KNOWN_TIMERS_END;
/// Rows of one slice.
const SLICE_ROWS: u32 = 256;
/// And about so many bytes of them.
const SLICE_BYTES: u32 = 256 << 10;

/// A part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Files(u64),
    Rows(Table),
    Log(StreamId),
    Hard(Bytes),
    Row(Table, Bytes),
}

impl Gone {
    fn parts(self) -> Vec<Part> {
        match self {
            Gone::Group(group) => vec![
                Part::Files(u64::from(group.0)),
                Part::Rows(Table::Groups),
                Part::Log(group.log_stream()),
                Part::Hard(group.hard_state_key()),
                Part::Hard(group.log_start_key()),
            ],
            Gone::Keyspace(id) => vec![
                Part::Rows(Table::Records),
                Part::Rows(Table::TokenIndex),
                Part::Row(Table::Meta, counter_row(id)),
            ],
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

/// What the garbage collector has asked for and waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Awaited {
    #[default]
    Nothing,
    /// These persists have not come back: what lies before them may be under way.
    Fence(BTreeSet<u64>),
    /// What there is of a part.
    Rows(Gone, Part),
    /// That a slice of it is gone.
    Slice,
    /// That the files of a group are gone.
    Files(Gone),
    /// Some time, since the disk is full.
    Room,
}

/// What is to be removed, and has been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GarbageCollector {
    /// Everything of this process's time that is left of nothing any more.
    swept: BTreeSet<Gone>,
    /// The parts that are left of each.
    left: BTreeMap<Gone, Vec<Part>>,
    /// Of these something may still be under way to the disk.
    fenced: BTreeSet<Gone>,
    /// Of these too, and nothing was asked for yet.
    new: BTreeSet<Gone>,
    awaited: Awaited,
    /// A deliberate mistake: nothing is removed.
    idle: bool,
}

impl GarbageCollector {
    /// Nothing is to be removed yet.
    pub(super) fn new(bugs: Bugs) -> Self {
        GarbageCollector {
            idle: bugs.has(Bug::SweepingLeftOut),
            ..GarbageCollector::default()
        }
    }

    /// Nothing serves these any more, or will again.
    pub(super) fn sweep(&mut self, gone: impl Iterator<Item = Gone>, effects: &mut Vec<Effect>) {
        for gone in gone {
            let known = self.swept.contains(&gone) || self.left.contains_key(&gone);
            if !known && !self.fenced.contains(&gone) {
                self.new.insert(gone);
            }
        }
        self.proceed(effects);
    }

    fn proceed(&mut self, effects: &mut Vec<Effect>) {
        if self.awaited != Awaited::Nothing || self.idle {
            return;
        }
        if !self.new.is_empty() {
            self.fenced = std::mem::take(&mut self.new);
            self.awaited = Awaited::Fence(FENCES.iter().map(|(token, _)| *token).collect());
            effects.extend(FENCES.map(|(token, priority)| Effect::Persist {
                token,
                priority,
                ops: Vec::new(),
            }));
            return;
        }
        while let Some(entry) = self.left.first_entry() {
            let gone = *entry.key();
            let Some(part) = entry.get().first().cloned() else {
                entry.remove();
                self.swept.insert(gone);
                continue;
            };
            return self.look(gone, part, effects);
        }
    }

    /// Asks what there is of a part; files just go.
    fn look(&mut self, gone: Gone, part: Part, effects: &mut Vec<Effect>) {
        self.awaited = Awaited::Rows(gone, part.clone());
        let query = match part {
            Part::Files(owner) => {
                self.awaited = Awaited::Files(gone);
                return effects.push(Effect::Files {
                    token: SWEEP_FILES,
                    task: FileTask::Retain { owner, number: None },
                });
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
            Part::Hard(key) => Query::Hard { key },
            Part::Row(table, key) => Query::Get { table, key },
        };
        effects.push(Effect::Read {
            token: SWEEP_READ,
            query,
        });
    }

    /// Nothing is left of the first part that was.
    fn part_ended(&mut self, gone: Gone) {
        if let Some(parts) = self.left.get_mut(&gone) {
            parts.remove(0);
        }
    }

    /// This is what there is. What cannot be read stays, and is looked at after the next start.
    fn read(&mut self, result: Result<Rows, Error>, effects: &mut Vec<Effect>) {
        let Awaited::Rows(gone, part) = std::mem::take(&mut self.awaited) else {
            return;
        };
        let found = result.unwrap_or_default().rows;
        let op = match part {
            Part::Rows(table) | Part::Row(table, _) if !found.is_empty() => {
                let delete = |(key, _)| StateWrite {
                    table,
                    key,
                    value: None,
                };
                JournalOp::Write(found.into_iter().map(delete).collect())
            }
            Part::Log(stream) if !found.is_empty() => JournalOp::Truncate { stream, from: 0 },
            Part::Hard(key) if !found.is_empty() => JournalOp::DeleteHard { key },
            _ => {
                self.part_ended(gone);
                return self.proceed(effects);
            }
        };
        self.awaited = Awaited::Slice;
        effects.push(Effect::Persist {
            token: SWEEP_PERSIST,
            priority: Priority::Bulk,
            ops: vec![op],
        });
    }

    /// A persist of this role came back.
    fn persisted(&mut self, token: u64, effects: &mut Vec<Effect>) {
        match &mut self.awaited {
            Awaited::Slice if token == SWEEP_PERSIST => {}
            Awaited::Fence(tokens) => {
                tokens.remove(&token);
                if !tokens.is_empty() {
                    return;
                }
                let fenced = std::mem::take(&mut self.fenced);
                self.left
                    .extend(fenced.into_iter().map(|gone| (gone, gone.parts())));
            }
            _ => return,
        }
        self.awaited = Awaited::Nothing;
        self.proceed(effects);
    }

    /// There is no room to note that something is gone. A fence has nothing to note: what lies before it came back too.
    fn refused(&mut self, token: u64, now: Instant, effects: &mut Vec<Effect>) {
        if token != SWEEP_PERSIST {
            return self.persisted(token, effects);
        }
        self.awaited = Awaited::Room;
        effects.push(Effect::SetTimer {
            id: SWEEP_TIMER,
            at: now + FULL_PAUSE,
        });
    }

    /// The disk may have room again.
    fn rested(&mut self, effects: &mut Vec<Effect>) {
        if self.awaited == Awaited::Room {
            self.awaited = Awaited::Nothing;
            self.proceed(effects);
        }
    }

    /// The files are gone, or cannot be removed: then they are after the next start.
    fn files_gone(&mut self, effects: &mut Vec<Effect>) {
        if let Awaited::Files(gone) = self.awaited {
            self.awaited = Awaited::Nothing;
            self.part_ended(gone);
            self.proceed(effects);
        }
    }
}

impl Control {
    /// Goes on with what was swept, if it is an answer to that.
    pub(super) fn sweep_on(&mut self, event: &Event, turn: &mut Turn<'_>) {
        let (gc, effects) = (&mut self.gc, &mut *turn.effects);
        match event {
            Event::Read {
                token: SWEEP_READ,
                result,
            } => gc.read(result.clone(), effects),
            Event::Persisted { tokens } => tokens.iter().for_each(|token| gc.persisted(*token, effects)),
            Event::PersistRefused { token } => gc.refused(*token, turn.now.instant, effects),
            Event::Timer { id: SWEEP_TIMER } => gc.rested(effects),
            Event::Files {
                token: SWEEP_FILES, ..
            } => gc.files_gone(effects),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
