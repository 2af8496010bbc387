//! The metrics of the Raft groups that this node belongs to, with the label `group`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_protocol::api::{GroupClaim, GroupState};

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
    elections: Family<Group, Counter>,
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
            "elections",
            "Elections that it has called for",
            self.elections.clone(),
        );
    }

    pub(super) fn set(&self, claim: GroupClaim) {
        let label = Group { group: claim.name };
        self.term.get_or_create(&label).set(claim.term);
        let leads = claim.state == GroupState::Leader;
        self.is_leader.get_or_create(&label).set(u64::from(leads));
        self.commit.get_or_create(&label).set(claim.commit);
        self.applied.get_or_create(&label).set(claim.applied);
        let elections = self.elections.get_or_create(&label);
        elections.inc_by(claim.elections.saturating_sub(elections.get()));
    }
}
