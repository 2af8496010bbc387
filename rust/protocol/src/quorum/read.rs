//! The read coordinator: one client's get, from R answers to the repair of those that were stale.
//!
//! A pure tally. Which replicas are asked: with read repair and a level above ONE all that can be reached, so that
//! the slowest does not matter and the stale ones are found; otherwise as many as the level requires, and the others
//! when those do not answer in time (a hedged request: Dean and Barroso, The Tail at Scale, 2013).
//!
//! Only the merge of the answers is kept, and of each replica whether it has all of that.

use std::sync::Arc;

use crate::api::{Entry, Response, Version};
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId};
use crate::key::Key;
use crate::level::Level;
use crate::quorum::exchange::Progress;
use crate::versions::{Context, KeyState, Sibling};

/// What is known of one replica's copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Copy {
    /// It was out of reach from the beginning, or went out of reach unasked.
    OutOfReach,
    /// It could be asked.
    Unasked,
    Asked,
    /// It answered, with all that is known so far.
    Current,
    /// It answered, and lacks something.
    Stale,
    /// It was asked and will not answer; its error, unless it went out of reach.
    Failed(Option<Error>),
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
            true => (*node, Copy::Unasked),
            false => (*node, Copy::OutOfReach),
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
    pub(super) fn ask(&mut self, count: usize) -> Vec<NodeId> {
        let unasked = self.copies.iter_mut().filter(|(_, copy)| *copy == Copy::Unasked);
        unasked
            .take(count)
            .map(|(node, copy)| {
                *copy = Copy::Asked;
                *node
            })
            .collect()
    }

    /// Whether there is anybody left to ask.
    pub(super) fn can_ask(&self) -> bool {
        self.count(|copy| *copy == Copy::Unasked) > 0
    }

    /// A replica's state.
    pub(super) fn fetched(&mut self, by: NodeId, state: Arc<KeyState>) {
        let waiting = |copy: &Copy| matches!(copy, Copy::Asked | Copy::Failed(_));
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

    /// A replica will not answer.
    pub(super) fn lost(&mut self, node: NodeId, error: Option<Error>) {
        for (of, copy) in &mut self.copies {
            match copy {
                Copy::Unasked if *of == node => *copy = Copy::OutOfReach,
                Copy::Asked if *of == node => *copy = Copy::Failed(error.clone()),
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
        self.answers() + self.count(|copy| matches!(copy, Copy::Asked | Copy::Unasked))
    }

    fn settled(&self) -> bool {
        self.count(|copy| *copy == Copy::Asked) == 0
    }

    fn damaged(&self) -> bool {
        self.count(Copy::corrupt) > 0
    }

    /// Whether more replicas must be asked: to get `required` answers, or to heal a corrupt record, for which all
    /// others are needed.
    pub(super) fn short(&self, required: u8) -> bool {
        let expected = self.answers() + self.count(|copy| *copy == Copy::Asked);
        self.damaged() || !self.answered && expected < usize::from(required)
    }

    /// Answers at R; is over when everyone asked has settled.
    pub(super) fn progress(&mut self, required: u8, level: Level) -> Progress {
        if self.answered {
            return match self.settled() {
                true => Progress::Over,
                false => Progress::Waiting,
            };
        }
        if self.answers() >= usize::from(required) {
            self.answered = true;
            let entry = Ok(Response::Entry(self.entry(level)));
            let over = self.settled() || !(self.repair || self.damaged());
            return match over {
                true => Progress::Done(entry),
                false => Progress::Answered(entry),
            };
        }
        let alive = self.possible();
        if alive < usize::from(required) {
            let alive = alive as u8;
            return Progress::Done(Err(self
                .reason()
                .unwrap_or(Error::Unavailable { required, alive })));
        }
        Progress::Waiting
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
    /// of them (see [`crate::quorum`]).
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
        let complete = self.count(|copy| copy.answered() || copy.corrupt()) == self.copies.len();
        let corrupt = match complete {
            true => nodes(&Copy::corrupt),
            false => Vec::new(),
        };
        (!stale.is_empty() || !corrupt.is_empty()).then_some(Repair {
            state,
            stale,
            corrupt,
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
