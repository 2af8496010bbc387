//! The metrics of the Raft groups that this node belongs to, with the label `group`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_protocol::api::{GroupClaim, GroupState};
use quorate_protocol::ids::NodeId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Group {
    group: String,
}

type Values = Family<Group, Gauge<u64, AtomicU64>>;

/// Set whenever a server claims something new.
#[derive(Default)]
pub(super) struct Groups {
    term: Values,
    is_leader: Values,
    commit: Values,
    applied: Values,
    lag: Values,
    elections: Family<Group, Counter>,
    leader_changes: Family<Group, Counter>,
    /// Whom each group followed last.
    leaders: Mutex<BTreeMap<String, NodeId>>,
}

impl Groups {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("raft_term", "The latest term that it has seen", self.term.clone());
        registry.register("raft_is_leader", "1 while it leads", self.is_leader.clone());
        registry.register(
            "raft_commit_index",
            "Committed, as far as it knows",
            self.commit.clone(),
        );
        registry.register("raft_applied_index", "Applied here", self.applied.clone());
        registry.register(
            "raft_lag_entries",
            "If it leads: entries that the member farthest behind is not known to have",
            self.lag.clone(),
        );
        registry.register(
            "raft_leader_changes",
            "How often it has followed another leader than before",
            self.leader_changes.clone(),
        );
        registry.register(
            "elections",
            "Elections that it has called for",
            self.elections.clone(),
        );
    }

    pub(super) fn set(&self, claim: GroupClaim) {
        self.count_change(&claim);
        let lag = claim.lag.iter().map(|(_, behind)| *behind).max().unwrap_or(0);
        let label = Group { group: claim.name };
        self.lag.get_or_create(&label).set(lag);
        self.term.get_or_create(&label).set(claim.term);
        let leads = claim.state == GroupState::Leader;
        self.is_leader.get_or_create(&label).set(u64::from(leads));
        self.commit.get_or_create(&label).set(claim.commit);
        self.applied.get_or_create(&label).set(claim.applied);
        let elections = self.elections.get_or_create(&label);
        elections.inc_by(claim.elections.saturating_sub(elections.get()));
    }

    fn count_change(&self, claim: &GroupClaim) {
        let Some(leader) = claim.leader else { return };
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        let before = leaders.insert(claim.name.clone(), leader);
        let label = Group {
            group: claim.name.clone(),
        };
        let changes = self.leader_changes.get_or_create(&label);
        if before.is_some_and(|before| before != leader) {
            changes.inc();
        }
    }

    /// The server that claimed this last is gone: it must not be shown as if it still led.
    pub(super) fn forget(&self, claim: &GroupClaim) {
        let label = Group {
            group: claim.name.clone(),
        };
        for values in [
            &self.term,
            &self.is_leader,
            &self.commit,
            &self.applied,
            &self.lag,
        ] {
            values.remove(&label);
        }
        self.elections.remove(&label);
        self.leader_changes.remove(&label);
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.remove(&claim.name);
    }
}
