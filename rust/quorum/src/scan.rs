//! The scan coordinator: one page of a keyspace's live keys in key order.
//!
//! Keys are hashed over all nodes, so the scan fetches the share of every reachable node and merges the shares by key.
//! The page ends at the last key of the first share that was cut off: that node may hold further keys before those of
//! the others. It also ends at the limit, and where it would become too large for one response.
//!
//! A node whose share begins with a corrupt record returns no share. The others' shares determine which key that can be;
//! reading it heals it, so that the next scan can continue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Page, Response};
use quorate_protocol::placement::Preference;
use quorate_versions::KeyState;

use crate::operation::Progress;
use crate::read::entry;

/// About the maximum size of the keys and values of a page, in bytes; a single entry may be larger.
pub(super) const MAX_PAGE_BYTES: usize = 4 << 20;

/// The number of keys to read, per node whose share is unreadable, to find the corrupt record and heal it.
const MAX_SUSPECTS: usize = 8;

/// One node's share: its rows in key order, and whether it has more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    rows: Vec<(Key, Arc<KeyState>)>,
    more: bool,
}

/// A scan in progress.
///
/// Invariant: no node has both a share and a failure, and only requested nodes have either.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scan {
    keyspace: KeyspaceId,
    me: NodeId,
    limit: usize,
    requested: BTreeSet<NodeId>,
    shares: BTreeMap<NodeId, Share>,
    failed: BTreeSet<NodeId>,
    /// The failed nodes whose share begins with a corrupt record.
    corrupt: BTreeSet<NodeId>,
    error: Option<Error>,
}

impl Scan {
    /// A scan of `limit` keys over these nodes.
    pub(super) fn new(keyspace: KeyspaceId, me: NodeId, limit: usize, requested: BTreeSet<NodeId>) -> Self {
        Scan {
            keyspace,
            me,
            limit,
            requested,
            shares: BTreeMap::new(),
            failed: BTreeSet::new(),
            corrupt: BTreeSet::new(),
            error: None,
        }
    }

    /// The nodes whose shares were requested.
    pub(super) fn requested(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.requested.iter().copied()
    }

    /// A node's share.
    pub(super) fn fetched(&mut self, by: NodeId, rows: Vec<(Key, Arc<KeyState>)>, more: bool) {
        if self.requested.contains(&by) {
            self.failed.remove(&by);
            self.corrupt.remove(&by);
            self.shares.insert(by, Share { rows, more });
        }
    }

    /// A node failed, or became unreachable (no error).
    pub(super) fn failed(&mut self, node: NodeId, error: Option<Error>) {
        if self.requested.contains(&node) && !self.shares.contains_key(&node) {
            self.failed.insert(node);
            if matches!(error, Some(Error::CorruptRecord(_))) {
                self.corrupt.insert(node);
            }
            self.error = error.or(self.error.take());
        }
    }

    /// Whether every key of the ring has `required` replicas among these nodes; if not, the minimum over all keys.
    pub(super) fn covers(nodes: &BTreeSet<NodeId>, preference: &Preference, required: u8) -> Result<(), u8> {
        let reachable = |list: &[NodeId]| list.iter().filter(|node| nodes.contains(node)).count() as u8;
        let fewest = preference.lists().map(reachable).min().unwrap_or(0);
        if fewest >= required { Ok(()) } else { Err(fewest) }
    }

    /// Done when all nodes have responded; after the soft deadline, when the responses cover the ring.
    pub(super) fn progress(
        &self,
        preference: &Preference,
        (required, level): (u8, Level),
        soft_deadline_passed: bool,
    ) -> Progress {
        let settled = self.shares.len() + self.failed.len() == self.requested.len();
        if !settled && !soft_deadline_passed {
            return Progress::Pending;
        }
        let answered = self.shares.keys().copied().collect();
        match Self::covers(&answered, preference, required) {
            Ok(()) => Progress::Done(Ok(Response::Page(self.page(preference, level)))),
            Err(alive) if settled => {
                let unavailable = Error::unavailable(required, alive);
                Progress::Done(Err(self.error.clone().unwrap_or(unavailable)))
            }
            Err(_) => Progress::Pending,
        }
    }

    /// The keys whose records may be corrupt: a store fails only at the first row of a share, so it is the first key that
    /// the node should have, or one soon after it if the node is stale.
    pub(super) fn suspects(&self, preference: &Preference) -> BTreeSet<Key> {
        let rows = self.shares.values().flat_map(|share| &share.rows);
        let known: BTreeSet<&Key> = match self.corrupt.is_empty() {
            true => BTreeSet::new(),
            false => rows.map(|(key, _)| key).collect(),
        };
        let of = |node: &NodeId| {
            let node = *node;
            let own = known.iter().filter(move |key| preference.of(key).contains(&node));
            own.take(MAX_SUSPECTS).map(|key| (*key).clone())
        };
        self.corrupt.iter().flat_map(of).collect()
    }

    /// The error at the deadline.
    pub(super) fn timed_out(&self, preference: &Preference, required: u8) -> Error {
        let nodes = self.shares.keys().copied().collect();
        let answered = Self::covers(&nodes, preference, required)
            .err()
            .unwrap_or(required);
        let late = Error::ReadTimeout { answered, required };
        self.error.clone().unwrap_or(late)
    }

    /// The last key up to which every share is complete; `None` if all are.
    fn bound(&self) -> Option<&Key> {
        let cut_off = self.shares.values().filter(|share| share.more);
        cut_off.filter_map(|share| Some(&share.rows.last()?.0)).min()
    }

    fn page(&self, preference: &Preference, level: Level) -> Page {
        let bound = self.bound();
        let mut merged: BTreeMap<&Key, Arc<KeyState>> = BTreeMap::new();
        for (key, state) in self.shares.values().flat_map(|share| &share.rows) {
            if bound.is_some_and(|bound| key > bound) {
                continue;
            }
            let known = merged.entry(key).or_insert_with(|| state.clone());
            if known != state {
                *known = Arc::new(known.merge(state));
            }
        }
        let mut page = Page {
            entries: Vec::new(),
            next: bound.cloned(),
        };
        let mut bytes = 0;
        for (key, state) in merged {
            if state.live().next().is_none() {
                continue;
            }
            if page.entries.len() >= self.limit || bytes >= MAX_PAGE_BYTES {
                page.next = page.entries.last().map(|(key, _)| key.clone());
                break;
            }
            let replicas = preference.of(key).iter().copied();
            let answered = replicas.filter(|node| self.shares.contains_key(node)).collect();
            bytes += key.size() + state.values().map(bytes::Bytes::len).sum::<usize>();
            page.entries.push((
                key.clone(),
                entry((self.keyspace, key), &state, answered, self.me, level),
            ));
        }
        page
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
