//! The garbage collector: removes the data of dropped keyspaces from this node's disk, a slice at a time.
//!
//! Ids of keyspaces and groups are never reused. So data under an id that was assigned and is no longer in
//! use is garbage, and may be removed once no role can need it: when the node role has ended the roles that
//! served it *and* the state without it is durable, since a node that started with an earlier state would
//! start them again ([`known`](super::known)). It is repeated after each start, since a crash may have
//! interrupted it. Scanning what is already removed costs a few reads.
//!
//! # Writes in flight
//! A role that has ended may have writes in flight, and reads see only completed ones. So the garbage
//! collector first waits for all earlier writes: the store performs those of one priority in order, and an
//! empty write completes after all others of its priority (the fence). A load of a file ends before the files
//! are removed, and restores no rows, since file tasks of one owner are performed in order too.
//!
//! A group's files, rows and log are removed, in this order; of a keyspace in quorum mode, the records and
//! their positions in the ring. A slice is read, and its rows are deleted in the background; the next slice
//! starts when that is durable, where the deleted rows end. (From the start of the range it would read over them,
//! since deleted rows stay in memory until they are flushed: in total, quadratic time.) Small states are last: a
//! server's vote and start of the log, a replica's reserved numbers. No server or replica of this id starts
//! again, so their promises need not be kept.

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
use crate::control::state::DroppedId;
use crate::host::OWN_TOKENS;
use crate::rows;
use crate::turn::Turn;

const GC_READ: u64 = OWN_TOKENS + 1;
const GC_PERSIST: u64 = KNOWN_SAVE + 1;
/// A fence has a persist of each priority.
const FENCES: [(u64, Priority); 3] = [
    (KNOWN_SAVE + 2, Priority::Urgent),
    (KNOWN_SAVE + 3, Priority::Normal),
    (KNOWN_SAVE + 4, Priority::Bulk),
];
/// The token of file tasks: the control plane has no files of its own.
const FILES_TOKEN: u64 = OWN_TOKENS;
const GC_TIMER: u64 = KNOWN_TIMERS_END;
/// The number of rows of one slice.
const SLICE_ROWS: u32 = 256;
/// Their approximate size.
const SLICE_BYTES: u32 = 256 << 10;

/// A part of the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Files(u64),
    Rows(Table),
    Log(StreamId),
    Hard(Bytes),
    Row(Table, Bytes),
}

impl DroppedId {
    fn parts(self) -> Vec<Part> {
        match self {
            DroppedId::Group(group) => vec![
                Part::Files(u64::from(group.0)),
                Part::Rows(Table::Groups),
                Part::Log(group.log_stream()),
                Part::Hard(group.hard_state_key()),
                Part::Hard(group.log_start_key()),
            ],
            DroppedId::Keyspace(id) => vec![
                Part::Rows(Table::Records),
                Part::Rows(Table::TokenIndex),
                Part::Row(Table::Meta, counter_row(id)),
            ],
        }
    }

    /// The range of keys of its rows.
    fn range(self) -> (Bytes, Bytes) {
        let prefix = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        match self {
            DroppedId::Group(group) => (
                rows::prefix(group),
                rows::prefix(GroupId(group.0.saturating_add(1))),
            ),
            DroppedId::Keyspace(id) => (prefix(id.0), prefix(id.0.saturating_add(1))),
        }
    }
}

/// What the garbage collector waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Pending {
    #[default]
    Nothing,
    /// These persists: earlier writes may be in flight.
    Fence(BTreeSet<u64>),
    /// The rows of a part.
    Rows(DroppedId, Part),
    /// The deletion of a slice, whose last key this is.
    Slice(DroppedId, Bytes),
    /// The removal of a group's files.
    Files(DroppedId),
    /// A pause, since the disk is full.
    Pause,
}

/// The progress of garbage collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct GarbageCollector {
    /// Ids of this process's time whose data has been removed.
    collected: BTreeSet<DroppedId>,
    /// The remaining parts of each id.
    remaining: BTreeMap<DroppedId, Vec<Part>>,
    /// The last key that was deleted of the first part of an id. No role writes rows of it any more, so that there are
    /// none before this key.
    deleted: Option<(DroppedId, Bytes)>,
    /// Ids whose fence is in flight.
    fenced: BTreeSet<DroppedId>,
    /// Ids whose fence has not been requested yet.
    new: BTreeSet<DroppedId>,
    pending: Pending,
    /// A deliberate mistake: nothing is removed.
    idle: bool,
}

impl GarbageCollector {
    /// A garbage collector without work.
    pub(super) fn new(bugs: Bugs) -> Self {
        GarbageCollector {
            idle: bugs.has(Bug::GcSkipped),
            ..GarbageCollector::default()
        }
    }

    /// Removes the data of these ids: no role serves them any more.
    pub(super) fn collect(&mut self, dropped: impl Iterator<Item = DroppedId>, effects: &mut Vec<Effect>) {
        for dropped in dropped {
            let known = self.collected.contains(&dropped) || self.remaining.contains_key(&dropped);
            if !known && !self.fenced.contains(&dropped) {
                self.new.insert(dropped);
            }
        }
        self.proceed(effects);
    }

    fn proceed(&mut self, effects: &mut Vec<Effect>) {
        if self.pending != Pending::Nothing || self.idle {
            return;
        }
        if !self.new.is_empty() {
            self.fenced = std::mem::take(&mut self.new);
            self.pending = Pending::Fence(FENCES.iter().map(|(token, _)| *token).collect());
            effects.extend(FENCES.map(|(token, priority)| Effect::Persist {
                token,
                priority,
                ops: Vec::new(),
            }));
            return;
        }
        while let Some(entry) = self.remaining.first_entry() {
            let dropped = *entry.key();
            let Some(part) = entry.get().first().cloned() else {
                entry.remove();
                self.collected.insert(dropped);
                continue;
            };
            return self.scan(dropped, part, effects);
        }
    }

    /// Scans a part; files are removed at once.
    fn scan(&mut self, dropped: DroppedId, part: Part, effects: &mut Vec<Effect>) {
        self.pending = Pending::Rows(dropped, part.clone());
        let query = match part {
            Part::Files(owner) => {
                self.pending = Pending::Files(dropped);
                return effects.push(Effect::Files {
                    token: FILES_TOKEN,
                    task: FileTask::Retain { owner, number: None },
                });
            }
            Part::Rows(table) => {
                let (first, end) = dropped.range();
                let start = match &self.deleted {
                    Some((of, key)) if *of == dropped => key.clone(),
                    _ => first,
                };
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
            token: GC_READ,
            query,
        });
    }

    /// A part is complete.
    fn part_ended(&mut self, dropped: DroppedId) {
        self.deleted = None;
        if let Some(parts) = self.remaining.get_mut(&dropped) {
            parts.remove(0);
        }
    }

    /// The rows of a scan. Unreadable rows stay, and are scanned again after the next start.
    fn read(&mut self, result: Result<Rows, Error>, effects: &mut Vec<Effect>) {
        let Pending::Rows(dropped, part) = std::mem::take(&mut self.pending) else {
            return;
        };
        let found = result.unwrap_or_default().rows;
        let last = found.last().map(|(key, _)| key.clone());
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
                self.part_ended(dropped);
                return self.proceed(effects);
            }
        };
        self.pending = Pending::Slice(dropped, last.unwrap_or_default());
        effects.push(Effect::Persist {
            token: GC_PERSIST,
            priority: Priority::Bulk,
            ops: vec![op],
        });
    }

    /// A persist is complete.
    fn persisted(&mut self, token: u64, effects: &mut Vec<Effect>) {
        match &mut self.pending {
            Pending::Slice(dropped, last) if token == GC_PERSIST => {
                self.deleted = Some((*dropped, std::mem::take(last)));
            }
            Pending::Fence(tokens) => {
                tokens.remove(&token);
                if !tokens.is_empty() {
                    return;
                }
                let fenced = std::mem::take(&mut self.fenced);
                self.remaining
                    .extend(fenced.into_iter().map(|dropped| (dropped, dropped.parts())));
            }
            _ => return,
        }
        self.pending = Pending::Nothing;
        self.proceed(effects);
    }

    /// The disk has no room for the deletion. A fence writes nothing, and is complete anyway.
    fn refused(&mut self, token: u64, now: Instant, effects: &mut Vec<Effect>) {
        if token != GC_PERSIST {
            return self.persisted(token, effects);
        }
        self.pending = Pending::Pause;
        effects.push(Effect::SetTimer {
            id: GC_TIMER,
            at: now + FULL_PAUSE,
        });
    }

    /// The pause after a full disk is over.
    fn resume(&mut self, effects: &mut Vec<Effect>) {
        if self.pending == Pending::Pause {
            self.pending = Pending::Nothing;
            self.proceed(effects);
        }
    }

    /// The files are removed, or cannot be: then they are removed after the next start.
    fn files_removed(&mut self, effects: &mut Vec<Effect>) {
        if let Pending::Files(dropped) = self.pending {
            self.pending = Pending::Nothing;
            self.part_ended(dropped);
            self.proceed(effects);
        }
    }
}

impl Control {
    /// Handles the results of garbage collection.
    pub(super) fn handle_gc(&mut self, event: &Event, turn: &mut Turn<'_>) {
        let (gc, effects) = (&mut self.gc, &mut *turn.effects);
        match event {
            Event::Read {
                token: GC_READ,
                result,
            } => gc.read(result.clone(), effects),
            Event::Persisted { tokens } => tokens.iter().for_each(|token| gc.persisted(*token, effects)),
            Event::PersistRefused { token } => gc.refused(*token, turn.now.instant, effects),
            Event::Timer { id: GC_TIMER } => gc.resume(effects),
            Event::Files {
                token: FILES_TOKEN, ..
            } => gc.files_removed(effects),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
