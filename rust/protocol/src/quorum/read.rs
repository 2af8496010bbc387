//! The read coordinator: one client's get, from R answers to the repair of those that were stale.
//!
//! A pure tally. Which replicas are asked: with read repair and a level above ONE all that can be reached, so that
//! the slowest does not matter and the stale ones are found; otherwise as many as the level requires, and the others
//! when those do not answer in time (a hedged request: Dean and Barroso, The Tail at Scale, 2013).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Entry, Response, Version};
use crate::error::Error;
use crate::ids::NodeId;
use crate::key::Key;
use crate::level::Level;
use crate::quorum::exchange::Progress;
use crate::versions::KeyState;

/// A read in progress.
///
/// Invariants: who answered or failed was asked; `unasked` are the reachable rest, the most preferred first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    pub(super) key: Key,
    me: NodeId,
    asked: BTreeSet<NodeId>,
    unasked: Vec<NodeId>,
    answers: BTreeMap<NodeId, Arc<KeyState>>,
    /// Those that will not answer, and their last error.
    failed: BTreeMap<NodeId, Option<Error>>,
    answered: bool,
    repair: bool,
}

impl Read {
    /// A read of `reachable` replicas (the most preferred first), `ask` of them at once.
    pub(super) fn new(key: Key, me: NodeId, reachable: Vec<NodeId>, ask: usize, repair: bool) -> Self {
        let unasked = reachable[ask..].to_vec();
        let asked = reachable.into_iter().take(ask).collect();
        Read {
            key,
            me,
            asked,
            unasked,
            answers: BTreeMap::new(),
            failed: BTreeMap::new(),
            answered: false,
            repair,
        }
    }

    /// Those that were asked so far.
    pub(super) fn asked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asked.iter().copied()
    }

    /// Asks all that have not been asked yet, and says who they are.
    pub(super) fn ask_more(&mut self) -> Vec<NodeId> {
        let more = std::mem::take(&mut self.unasked);
        self.asked.extend(&more);
        more
    }

    /// A replica's state.
    pub(super) fn fetched(&mut self, by: NodeId, state: Arc<KeyState>) {
        if self.asked.contains(&by) {
            self.failed.remove(&by);
            self.answers.insert(by, state);
        }
    }

    /// A replica will not answer.
    pub(super) fn lost(&mut self, node: NodeId, error: Option<Error>) {
        self.unasked.retain(|other| *other != node);
        if self.asked.contains(&node) && !self.answers.contains_key(&node) {
            self.failed.insert(node, error);
        }
    }

    fn settled(&self) -> bool {
        self.answers.len() + self.failed.len() == self.asked.len()
    }

    /// Whether more replicas must be asked to get `required` answers.
    pub(super) fn short(&self, required: u8) -> bool {
        let possible = self.asked.len() - self.failed.len();
        !self.answered && possible < usize::from(required) && !self.unasked.is_empty()
    }

    /// Answers at R; is over when everyone asked has settled.
    pub(super) fn progress(&mut self, required: u8, level: Level) -> Progress {
        if self.answered {
            return if self.settled() {
                Progress::Over
            } else {
                Progress::Waiting
            };
        }
        if self.answers.len() >= usize::from(required) {
            self.answered = true;
            let entry = Ok(Response::Entry(entry(
                &self.merged(),
                self.answers.keys(),
                self.me,
                level,
            )));
            let over = self.settled() || !self.repair;
            return if over {
                Progress::Done(entry)
            } else {
                Progress::Answered(entry)
            };
        }
        let possible = self.asked.len() - self.failed.len() + self.unasked.len();
        if possible < usize::from(required) {
            return Progress::Done(Err(self.timed_out(required)));
        }
        Progress::Waiting
    }

    /// What to say when too few answered. A replica's own error says more than a timeout does.
    pub(super) fn timed_out(&self, required: u8) -> Error {
        let reason = self.failed.values().flatten().next().cloned();
        reason.unwrap_or(Error::ReadTimeout {
            answered: self.answers.len() as u8,
            required,
        })
    }

    fn merged(&self) -> Arc<KeyState> {
        let mut states = self.answers.values();
        let first = states.next().cloned().unwrap_or_default();
        states.fold(first, |merged, state| {
            if merged == *state {
                merged
            } else {
                Arc::new(merged.merge(state))
            }
        })
    }

    /// The replicas that lack something, with the state that heals them. A replica whose record is corrupt counts.
    pub(super) fn repairs(&self) -> Option<(Arc<KeyState>, Vec<NodeId>)> {
        if !self.repair || self.answers.is_empty() {
            return None;
        }
        let merged = self.merged();
        if merged.is_empty() {
            return None;
        }
        let stale = self
            .answers
            .iter()
            .filter(|(_, state)| **state != merged)
            .map(|(node, _)| *node);
        let corrupt = self
            .failed
            .iter()
            .filter(|(_, error)| matches!(error, Some(Error::CorruptRecord(_))));
        let stale: Vec<NodeId> = stale.chain(corrupt.map(|(node, _)| *node)).collect();
        (!stale.is_empty()).then_some((merged, stale))
    }
}

/// A key's state as an answer.
pub(super) fn entry<'a>(
    state: &KeyState,
    answered: impl Iterator<Item = &'a NodeId>,
    coordinator: NodeId,
    level: Level,
) -> Entry {
    let version = |sibling: &crate::versions::Sibling| {
        let value = sibling.value.clone()?;
        Some(Version {
            dot: sibling.dot,
            value,
            timestamp: sibling.timestamp,
        })
    };
    Entry {
        versions: state.siblings().iter().filter_map(version).collect(),
        context: state.clock().clone(),
        answered: answered.copied().collect(),
        coordinator,
        level,
    }
}
