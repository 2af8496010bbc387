//! The scan coordinator: one page of a keyspace's live keys in key order.
//!
//! Keys are hashed over all nodes, so every reachable node is asked for its share of the range and the shares are
//! merged by key. The page ends where the first node's share was cut off: beyond that key, others may hold keys that
//! this node has not shown yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Page, Response};
use crate::error::Error;
use crate::ids::NodeId;
use crate::key::Key;
use crate::level::Level;
use crate::placement::Preference;
use crate::quorum::exchange::Progress;
use crate::quorum::read::entry;
use crate::versions::KeyState;

/// One node's share: its rows in key order, and whether it has more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    rows: Vec<(Key, Arc<KeyState>)>,
    more: bool,
}

/// A scan in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scan {
    me: NodeId,
    limit: usize,
    asked: BTreeSet<NodeId>,
    shares: BTreeMap<NodeId, Share>,
    failed: BTreeSet<NodeId>,
    error: Option<Error>,
}

impl Scan {
    /// A scan of `limit` keys that asks these nodes.
    pub(super) fn new(me: NodeId, limit: usize, asked: BTreeSet<NodeId>) -> Self {
        Scan {
            me,
            limit,
            asked,
            shares: BTreeMap::new(),
            failed: BTreeSet::new(),
            error: None,
        }
    }

    /// Those that were asked.
    pub(super) fn asked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asked.iter().copied()
    }

    /// A node's share.
    pub(super) fn fetched(&mut self, by: NodeId, rows: Vec<(Key, Arc<KeyState>)>, more: bool) {
        if self.asked.contains(&by) {
            self.shares.insert(by, Share { rows, more });
        }
    }

    /// A node will not answer.
    pub(super) fn lost(&mut self, node: NodeId, error: Option<Error>) {
        if self.asked.contains(&node) && !self.shares.contains_key(&node) {
            self.failed.insert(node);
            self.error = error.or(self.error.take());
        }
    }

    /// Whether every key of the ring has `required` replicas among these nodes.
    pub(super) fn covers(nodes: &BTreeSet<NodeId>, preference: &Preference, required: u8) -> Result<(), u8> {
        let reachable = |list: &[NodeId]| list.iter().filter(|node| nodes.contains(node)).count() as u8;
        let fewest = preference.lists().map(reachable).min().unwrap_or(0);
        if fewest >= required { Ok(()) } else { Err(fewest) }
    }

    /// Done when everyone answered; with `impatient`, when those that did cover the ring.
    pub(super) fn progress(
        &self,
        preference: &Preference,
        required: u8,
        level: Level,
        impatient: bool,
    ) -> Progress {
        let settled = self.shares.len() + self.failed.len() == self.asked.len();
        if !settled && !impatient {
            return Progress::Waiting;
        }
        let answered = self.shares.keys().copied().collect();
        match Self::covers(&answered, preference, required) {
            Ok(()) => Progress::Done(Ok(Response::Page(self.page(preference, level)))),
            Err(fewest) if settled => {
                let error = self.error.clone();
                Progress::Done(Err(error.unwrap_or(Error::ReadTimeout {
                    answered: fewest,
                    required,
                })))
            }
            Err(_) => Progress::Waiting,
        }
    }

    /// What to say at the deadline.
    pub(super) fn timed_out(&self, preference: &Preference, required: u8) -> Error {
        let answered = self.shares.keys().copied().collect();
        let answered = Self::covers(&answered, preference, required)
            .err()
            .unwrap_or(required);
        self.error
            .clone()
            .unwrap_or(Error::ReadTimeout { answered, required })
    }

    fn page(&self, preference: &Preference, level: Level) -> Page {
        let cut = |share: &Share| {
            if share.more {
                share.rows.last().map(|(key, _)| key.clone())
            } else {
                None
            }
        };
        let bound: Option<Key> = self.shares.values().filter_map(cut).min();
        let mut merged: BTreeMap<&Key, KeyState> = BTreeMap::new();
        for (key, state) in self.shares.values().flat_map(|share| &share.rows) {
            if bound.as_ref().is_none_or(|bound| key <= bound) {
                let known = merged.entry(key).or_default();
                *known = known.merge(state);
            }
        }
        let live = |(key, state): (&Key, KeyState)| {
            state.live().next()?;
            let answered: Vec<NodeId> = preference
                .of(key)
                .iter()
                .copied()
                .filter(|node| self.shares.contains_key(node))
                .collect();
            Some((key.clone(), entry(&state, answered.iter(), self.me, level)))
        };
        let mut entries: Vec<_> = merged.into_iter().filter_map(live).collect();
        let cut_short = entries.len() > self.limit;
        entries.truncate(self.limit);
        let last = entries.last().map(|(key, _)| key.clone());
        Page {
            next: if cut_short { last } else { bound },
            entries,
        }
    }
}
