//! The read coordinator: one client's get, from R answers to the repair of those that were stale.
//!
//! A pure tally. Which replicas are asked: with read repair and a level above ONE all that can be reached, so that
//! the slowest does not matter and the stale ones are found; otherwise as many as the level requires, and the others
//! when those do not answer in time (a hedged request: Dean and Barroso, The Tail at Scale, 2013).
//!
//! Only the merge of the answers is kept, and of each replica whether it has all of that.
//!
//! A read that cannot do without a replica whose record is corrupt waits for all the others, heals that record with
//! what they have together, and counts the replica once it has that durably.

use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Entry, Response, Version};
use quorate_versions::{Context, KeyState, Sibling};

use crate::operation::Progress;

/// What is known of one replica's copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Copy {
    /// It was out of reach from the beginning, or went out of reach unasked.
    Unreachable,
    /// It could be asked.
    Unsent,
    Pending,
    /// It answered, with all that is known so far.
    Current,
    /// It answered, and lacks something.
    Stale,
    /// It was asked and will not answer; its error, unless it went out of reach.
    Failed(Option<Error>),
    /// Its record was corrupt, as this error says; it was sent all that the others have, and this read waits for it.
    Healing(Error),
    /// It could not make that durable.
    HealFailed(Error),
}

impl Copy {
    fn answered(&self) -> bool {
        matches!(self, Copy::Current | Copy::Stale)
    }

    fn corrupt(&self) -> bool {
        matches!(self, Copy::Failed(Some(Error::CorruptRecord(_))))
    }
}

/// What the replicas that a read found wanting must be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repair {
    /// All that the answers together have.
    pub(super) state: Arc<KeyState>,
    /// Those that lack part of it.
    pub(super) stale: Vec<NodeId>,
    /// Those whose record is unreadable. Named only when all other replicas of the key have answered.
    pub(super) corrupt: Vec<NodeId>,
    /// Whether the read waits for it, and needs an answer of its own even if another read sent the same a moment ago.
    pub(super) awaited: bool,
}

/// A read in progress.
///
/// Invariants: `merged` is the merge of all answers, `None` before the first; a current copy equals it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    keyspace: KeyspaceId,
    pub(super) key: Key,
    me: NodeId,
    /// In the order in which they are asked.
    copies: Vec<(NodeId, Copy)>,
    merged: Option<Arc<KeyState>>,
    answered: bool,
    /// Whether stale replicas are of interest.
    repair: bool,
}

impl Read {
    /// A read of the replicas of a key, the first to ask first, each with whether it can be reached.
    pub(super) fn new(
        (keyspace, key): (KeyspaceId, Key),
        me: NodeId,
        replicas: &[(NodeId, bool)],
        repair: bool,
    ) -> Self {
        let copy = |(node, reachable): &(NodeId, bool)| match reachable {
            true => (*node, Copy::Unsent),
            false => (*node, Copy::Unreachable),
        };
        Read {
            keyspace,
            key,
            me,
            copies: replicas.iter().map(copy).collect(),
            merged: None,
            answered: false,
            repair,
        }
    }

    /// Asks at most this many more, and says who they are.
    pub(super) fn send_more(&mut self, count: usize) -> Vec<NodeId> {
        let unsent = self.copies.iter_mut().filter(|(_, copy)| *copy == Copy::Unsent);
        unsent
            .take(count)
            .map(|(node, copy)| {
                *copy = Copy::Pending;
                *node
            })
            .collect()
    }

    /// Whether there is anybody left to ask.
    pub(super) fn has_unsent(&self) -> bool {
        self.count(|copy| *copy == Copy::Unsent) > 0
    }

    /// A replica's state.
    pub(super) fn fetched(&mut self, by: NodeId, state: Arc<KeyState>) {
        let waiting = |copy: &Copy| matches!(copy, Copy::Pending | Copy::Failed(_));
        let Some(place) = self
            .copies
            .iter()
            .position(|(node, copy)| *node == by && waiting(copy))
        else {
            return;
        };
        self.copies[place].1 = match &self.merged {
            Some(merged) if *merged == state => Copy::Current,
            Some(merged) if merged.includes(&state) => Copy::Stale,
            Some(merged) => {
                let merged = Arc::new(merged.merge(&state));
                for (_, copy) in &mut self.copies {
                    if *copy == Copy::Current {
                        *copy = Copy::Stale;
                    }
                }
                let copy = if merged == state {
                    Copy::Current
                } else {
                    Copy::Stale
                };
                self.merged = Some(merged);
                copy
            }
            None => {
                self.merged = Some(state);
                Copy::Current
            }
        };
    }

    /// A replica has durably what it was healed with, which is all that there was.
    pub(super) fn healed(&mut self, by: NodeId) {
        for (node, copy) in &mut self.copies {
            if *node == by && matches!(copy, Copy::Healing(_)) {
                *copy = Copy::Current;
            }
        }
    }

    /// A replica will not answer.
    pub(super) fn failed(&mut self, node: NodeId, error: Option<Error>) {
        for (of, copy) in &mut self.copies {
            match copy {
                Copy::Unsent if *of == node => *copy = Copy::Unreachable,
                Copy::Pending if *of == node => *copy = Copy::Failed(error.clone()),
                // A repeated answer from before it was sent what heals it.
                Copy::Healing(_) if matches!(error, Some(Error::CorruptRecord(_))) => {}
                // What its disk says of a write tells the reader less than that the record is corrupt.
                Copy::Healing(corrupt) if *of == node => *copy = Copy::HealFailed(corrupt.clone()),
                _ => {}
            }
        }
    }

    fn count(&self, wanted: impl Fn(&Copy) -> bool) -> usize {
        self.copies.iter().filter(|(_, copy)| wanted(copy)).count()
    }

    fn answers(&self) -> usize {
        self.count(Copy::answered)
    }

    /// How many answers there can be in the end.
    fn possible(&self) -> usize {
        self.answers() + self.count(|copy| matches!(copy, Copy::Pending | Copy::Unsent | Copy::Healing(_)))
    }

    fn is_settled(&self) -> bool {
        self.count(|copy| *copy == Copy::Pending) == 0
    }

    fn has_corrupt(&self) -> bool {
        self.count(Copy::corrupt) > 0
    }

    /// Whether more replicas must be asked: to get `required` answers, or to heal a corrupt record, for which all
    /// others are needed.
    pub(super) fn needs_more(&self, required: u8) -> bool {
        let expected = self.answers() + self.count(|copy| *copy == Copy::Pending);
        self.has_corrupt() || !self.answered && expected < usize::from(required)
    }

    /// Whether corrupt records can be healed in the end: all the other replicas have answered, or may yet.
    fn healable(&self) -> bool {
        let gone = |copy: &Copy| {
            matches!(copy, Copy::Unreachable | Copy::Failed(_) | Copy::HealFailed(_)) && !copy.corrupt()
        };
        self.has_corrupt() && self.count(gone) == 0
    }

    /// Whether all the replicas whose records are not corrupt have answered.
    fn complete(&self) -> bool {
        let known = |copy: &Copy| copy.answered() || copy.corrupt() || matches!(copy, Copy::Healing(_));
        self.count(known) == self.copies.len()
    }

    /// What those with a corrupt record must be sent now, since the level cannot be met without them; the read goes
    /// on when they have it ([`healed`](Self::healed)).
    pub(super) fn heal(&mut self, required: u8) -> Option<Repair> {
        if self.answered || self.possible() >= usize::from(required) || !self.complete() {
            return None;
        }
        let state = self.merged.clone().filter(|state| !state.is_empty())?;
        let mut corrupt = Vec::new();
        for (node, copy) in &mut self.copies {
            if let Copy::Failed(Some(error @ Error::CorruptRecord(_))) = copy {
                *copy = Copy::Healing(error.clone());
                corrupt.push(*node);
            }
        }
        (!corrupt.is_empty()).then_some(Repair {
            state,
            stale: Vec::new(),
            corrupt,
            awaited: true,
        })
    }

    /// Answers at R; is over when everyone asked has settled.
    pub(super) fn progress(&mut self, required: u8, level: Level) -> Progress {
        if self.answered {
            return match self.is_settled() {
                true => Progress::Finished,
                false => Progress::Pending,
            };
        }
        if self.answers() >= usize::from(required) {
            self.answered = true;
            let entry = Ok(Response::Entry(self.entry(level)));
            let over = self.is_settled() || !(self.repair || self.has_corrupt());
            return match over {
                true => Progress::Done(entry),
                false => Progress::Answered(entry),
            };
        }
        let alive = self.possible();
        let may_heal = self.healable() && !self.is_settled();
        if alive < usize::from(required) && !may_heal {
            let alive = alive as u8;
            return Progress::Done(Err(self.reason().unwrap_or(Error::unavailable(required, alive))));
        }
        Progress::Pending
    }

    /// What to say at the deadline.
    pub(super) fn timed_out(&self, required: u8) -> Error {
        let answered = self.answers() as u8;
        self.reason().unwrap_or(Error::ReadTimeout { answered, required })
    }

    /// A replica's own error, which says more than a count does.
    fn reason(&self) -> Option<Error> {
        self.copies.iter().find_map(|(_, copy)| match copy {
            Copy::Failed(error) => error.clone(),
            Copy::Healing(error) | Copy::HealFailed(error) => Some(error.clone()),
            _ => None,
        })
    }

    fn entry(&self, level: Level) -> Entry {
        let state = self
            .merged
            .as_deref()
            .expect("a read that is answered has answers");
        let answered = self.copies.iter().filter(|(_, copy)| copy.answered());
        let answered = answered.map(|(node, _)| *node).collect();
        entry((self.keyspace, &self.key), state, answered, self.me, level)
    }

    /// About how many bytes it keeps in memory.
    pub(super) fn weight(&self) -> usize {
        let siblings = self.merged.iter().flat_map(|state| state.siblings());
        let values = siblings.map(|sibling| 64 + sibling.value.as_ref().map_or(0, bytes::Bytes::len));
        512 + self.key.size() + values.sum::<usize>()
    }

    /// What has to be sent to whom, if anything.
    ///
    /// A corrupt record is replaced only by what *all* the other replicas have. Its replica has issued dots for the
    /// key that it does not remember, and its next dot will claim to have seen them; so it must first see what is left
    /// of them (see [`crate`]).
    pub(super) fn repair(&self) -> Option<Repair> {
        let state = self.merged.clone().filter(|state| !state.is_empty())?;
        let nodes = |wanted: &dyn Fn(&Copy) -> bool| -> Vec<NodeId> {
            let copies = self.copies.iter().filter(|(_, copy)| wanted(copy));
            copies.map(|(node, _)| *node).collect()
        };
        let stale = match self.repair {
            true => nodes(&|copy| *copy == Copy::Stale),
            false => Vec::new(),
        };
        let corrupt = match self.complete() {
            true => nodes(&Copy::corrupt),
            false => Vec::new(),
        };
        (!stale.is_empty() || !corrupt.is_empty()).then_some(Repair {
            state,
            stale,
            corrupt,
            awaited: false,
        })
    }
}

/// A key's state as an answer.
pub(super) fn entry(
    (keyspace, key): (KeyspaceId, &Key),
    state: &KeyState,
    answered: Vec<NodeId>,
    coordinator: NodeId,
    level: Level,
) -> Entry {
    let version = |sibling: &Sibling| {
        let value = sibling.value.clone()?;
        Some(Version {
            dot: sibling.dot,
            value,
            timestamp: sibling.timestamp,
        })
    };
    Entry {
        versions: state.live().filter_map(version).collect(),
        context: Context::new(keyspace, key, state.clock().clone()),
        answered,
        coordinator,
        level,
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
