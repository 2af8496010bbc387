//! The read coordinator: one client's get, from R responses to the repair of stale replicas.
//!
//! A pure tally. With read repair and a level above ONE, a read contacts all reachable replicas, so that the slowest
//! does not matter and stale ones are found; otherwise as many as the level requires, and the others when those do not
//! respond in time (a hedged request: Dean and Barroso, The Tail at Scale, 2013).
//!
//! It keeps only the merge of the responses, and for each replica whether its state equals the merge.
//!
//! A read that requires a replica whose record is corrupt waits for all the others, heals that record with their merged
//! state, and counts the replica when that is durable.

use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Entry, Response, Version};
use quorate_versions::{Context, KeyState, Sibling};

use crate::operation::Progress;

/// The state of one replica's copy, as far as known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Copy {
    /// It was unreachable from the beginning, or before it was sent a `Fetch`.
    Unreachable,
    /// It is reachable and was not sent a `Fetch` yet.
    Unsent,
    /// It was sent a `Fetch` and has not responded.
    Pending,
    /// It responded; its state equals the merge.
    Current,
    /// It responded; its state lacks part of the merge.
    Stale,
    /// It was sent a `Fetch` and will not respond; its error, unless it became unreachable.
    Failed(Option<Error>),
    /// Its record was corrupt (the error); it was sent the merged state of the others, and this read waits for it.
    Healing(Error),
    /// It could not make that state durable.
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

/// A repair: the state to send to the replicas that a read found stale or corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repair {
    /// The merge of all responses.
    pub(super) state: Arc<KeyState>,
    /// The replicas that lack part of it.
    pub(super) stale: Vec<NodeId>,
    /// The replicas whose record is unreadable. Listed only when all other replicas of the key have responded.
    pub(super) corrupt: Vec<NodeId>,
    /// Whether the read waits for it, so that it is sent even if another read sent the same repair recently.
    pub(super) awaited: bool,
}

/// A read in progress.
///
/// Invariants: `merged` is the merge of all responses, `None` before the first; a current copy equals it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    keyspace: KeyspaceId,
    pub(super) key: Key,
    me: NodeId,
    /// In the order in which they are contacted.
    copies: Vec<(NodeId, Copy)>,
    merged: Option<Arc<KeyState>>,
    answered: bool,
    /// Whether stale replicas are repaired.
    repair: bool,
}

impl Read {
    /// A read of the replicas of a key, in the order in which they are contacted, each with whether it is reachable.
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

    /// Returns at most this many more replicas, which the caller must send a `Fetch`.
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

    /// Whether there are reachable replicas that were not sent a `Fetch` yet.
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

    /// A healed replica has the merged state durably.
    pub(super) fn healed(&mut self, by: NodeId) {
        for (node, copy) in &mut self.copies {
            if *node == by && matches!(copy, Copy::Healing(_)) {
                *copy = Copy::Current;
            }
        }
    }

    /// A replica failed, or became unreachable (no error).
    pub(super) fn failed(&mut self, node: NodeId, error: Option<Error>) {
        for (of, copy) in &mut self.copies {
            match copy {
                Copy::Unsent if *of == node => *copy = Copy::Unreachable,
                Copy::Pending if *of == node => *copy = Copy::Failed(error.clone()),
                // A duplicate response from before it was sent the state that heals it.
                Copy::Healing(_) if matches!(error, Some(Error::CorruptRecord(_))) => {}
                // The corrupt record is more useful to the reader than the error of the disk.
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

    /// The maximum number of responses that are still possible.
    fn possible(&self) -> usize {
        self.answers() + self.count(|copy| matches!(copy, Copy::Pending | Copy::Unsent | Copy::Healing(_)))
    }

    fn is_settled(&self) -> bool {
        self.count(|copy| *copy == Copy::Pending) == 0
    }

    fn has_corrupt(&self) -> bool {
        self.count(Copy::corrupt) > 0
    }

    /// Whether more replicas must be contacted: to get `required` responses, or to heal a corrupt record, which requires
    /// all others.
    pub(super) fn needs_more(&self, required: u8) -> bool {
        let expected = self.answers() + self.count(|copy| *copy == Copy::Pending);
        self.has_corrupt() || !self.answered && expected < usize::from(required)
    }

    /// Whether corrupt records may still be healed: all the other replicas have responded or are pending.
    fn healable(&self) -> bool {
        let gone = |copy: &Copy| {
            matches!(copy, Copy::Unreachable | Copy::Failed(_) | Copy::HealFailed(_)) && !copy.corrupt()
        };
        self.has_corrupt() && self.count(gone) == 0
    }

    /// Whether all replicas whose records are not corrupt have responded.
    fn complete(&self) -> bool {
        let known = |copy: &Copy| copy.answered() || copy.corrupt() || matches!(copy, Copy::Healing(_));
        self.count(known) == self.copies.len()
    }

    /// The repair of corrupt replicas that the level requires; the read continues when it is durable there
    /// ([`healed`](Self::healed)).
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

    /// Responds at R responses; finishes when no contacted replica is pending.
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

    /// The error at the deadline.
    pub(super) fn timed_out(&self, required: u8) -> Error {
        let answered = self.answers() as u8;
        self.reason().unwrap_or(Error::ReadTimeout { answered, required })
    }

    /// A replica's own error, which is more useful than a count.
    fn reason(&self) -> Option<Error> {
        self.copies.iter().find_map(|(_, copy)| match copy {
            Copy::Failed(error) => error.clone(),
            Copy::Healing(error) | Copy::HealFailed(error) => Some(error.clone()),
            _ => None,
        })
    }

    fn entry(&self, level: Level) -> Entry {
        let state = self.merged.as_deref().expect("an answered read has responses");
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

    /// The repair to send after the response, if any.
    ///
    /// A corrupt record is replaced only by the merged state of *all* the other replicas. Its replica has issued dots for
    /// the key that it has lost, and its next dot would claim to have seen them; so it must first get those that the
    /// others have (see [`crate`]).
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

/// A key's state as an entry of a response.
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
