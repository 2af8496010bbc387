//! The metrics of the Raft groups that this node belongs to, with the label `group`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use quorate_core::ids::NodeId;
use quorate_protocol::api::{GroupClaim, GroupState};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Group {
    group: String,
}

type Values = Family<Group, Gauge<u64, AtomicU64>>;
type Counts = Family<Group, Counter>;

fn election_duration() -> Histogram {
    // 1 ms to 16 s
    Histogram::new(exponential_buckets(1e-3, 2.0, 15))
}

/// Updated with every claim of a server.
pub(super) struct Groups {
    term: Values,
    is_leader: Values,
    commit: Values,
    applied: Values,
    lag: Values,
    elections: Counts,
    elections_won: Counts,
    election_duration: Family<Group, Histogram, fn() -> Histogram>,
    heartbeats_sent: Counts,
    heartbeats_answered: Counts,
    commands: Counts,
    leader_changes: Counts,
    /// The last leader of each group.
    leaders: Mutex<BTreeMap<String, NodeId>>,
}

impl Default for Groups {
    fn default() -> Self {
        Groups {
            term: Family::default(),
            is_leader: Family::default(),
            commit: Family::default(),
            applied: Family::default(),
            lag: Family::default(),
            elections: Family::default(),
            elections_won: Family::default(),
            election_duration: Family::new_with_constructor(election_duration as fn() -> Histogram),
            heartbeats_sent: Family::default(),
            heartbeats_answered: Family::default(),
            commands: Family::default(),
            leader_changes: Family::default(),
            leaders: Mutex::default(),
        }
    }
}

/// Raises a counter to the server's own count, which restarts with the server.
fn raise(counts: &Counts, label: &Group, now: u64) {
    let counter = counts.get_or_create(label);
    counter.inc_by(now.saturating_sub(counter.get()));
}

impl Groups {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("raft_term", "Current term of the server", self.term.clone());
        registry.register(
            "raft_is_leader",
            "1 while the server leads",
            self.is_leader.clone(),
        );
        registry.register(
            "raft_commit_index",
            "Commit index known to the server",
            self.commit.clone(),
        );
        registry.register(
            "raft_applied_index",
            "Index of the last applied entry",
            self.applied.clone(),
        );
        registry.register(
            "raft_lag_entries",
            "Entries that the slowest follower lags behind, on the leader",
            self.lag.clone(),
        );
        registry.register(
            "raft_leader_changes",
            "Changes of the leader that the server followed",
            self.leader_changes.clone(),
        );
        registry.register(
            "elections",
            "Elections started by the server",
            self.elections.clone(),
        );
        registry.register(
            "elections_won",
            "Elections won by the server",
            self.elections_won.clone(),
        );
        registry.register_with_unit(
            "election_duration",
            "Duration of elections won by the server, from the election timeout to leadership",
            Unit::Seconds,
            self.election_duration.clone(),
        );
        registry.register(
            "raft_heartbeats_sent",
            "Heartbeats sent by the server as a leader, each to one member",
            self.heartbeats_sent.clone(),
        );
        registry.register(
            "raft_heartbeats_answered",
            "Heartbeats sent by the server as a leader that were answered",
            self.heartbeats_answered.clone(),
        );
        registry.register(
            "raft_commands",
            "Commands proposed by the server as a leader and committed: sum over the nodes for the writes of a group",
            self.commands.clone(),
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
        let activity = claim.activity;
        if activity.elections_won > self.elections_won.get_or_create(&label).get() {
            let took = Duration::from_micros(activity.election_micros).as_secs_f64();
            self.election_duration.get_or_create(&label).observe(took);
        }
        for (counts, now) in [
            (&self.elections, claim.elections),
            (&self.elections_won, activity.elections_won),
            (&self.heartbeats_sent, activity.heartbeats_sent),
            (&self.heartbeats_answered, activity.heartbeats_answered),
            (&self.commands, activity.commands),
        ] {
            raise(counts, &label, now);
        }
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

    /// Removes the metrics of a server that has ended, so that it is not shown as the leader.
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
        for counts in [
            &self.elections,
            &self.elections_won,
            &self.heartbeats_sent,
            &self.heartbeats_answered,
            &self.commands,
            &self.leader_changes,
        ] {
            counts.remove(&label);
        }
        self.election_duration.remove(&label);
        let mut leaders = self.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        leaders.remove(&claim.name);
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::status::Activity;
    use quorate_raft::types::GroupId;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn claim(activity: Activity) -> GroupClaim {
        GroupClaim {
            group: GroupId(2),
            name: "accounts".to_owned(),
            node: NodeId(1),
            state: GroupState::Leader,
            term: 3,
            leader: Some(NodeId(1)),
            heard_micros: Some(0),
            commit: 9,
            applied: 9,
            last: 9,
            snapshot: 0,
            voters: vec![NodeId(1)],
            learners: Vec::new(),
            lag: Vec::new(),
            elections: 4,
            problem: None,
            activity,
        }
    }

    fn has(text: &str, line: &str) {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} is not in\n{text}"
        );
    }

    #[test]
    fn counters_follow_the_claims_and_each_election_is_observed_once() {
        let metrics = Metrics::new(NodeId(1));
        let mut activity = Activity {
            heartbeats_sent: 100,
            heartbeats_answered: 99,
            commands: 7,
            elections_won: 1,
            election_micros: 3_000,
        };
        metrics.group(claim(activity));
        activity.heartbeats_sent = 200;
        activity.commands = 9;
        metrics.group(claim(activity));
        let text = metrics.render();
        let labels = r#"{node="n1",group="accounts"}"#;
        for (name, value) in [
            ("quorate_elections_total", 4),
            ("quorate_elections_won_total", 1),
            ("quorate_election_duration_seconds_count", 1),
            ("quorate_raft_heartbeats_sent_total", 200),
            ("quorate_raft_heartbeats_answered_total", 99),
            ("quorate_raft_commands_total", 9),
        ] {
            has(&text, &format!("{name}{labels} {value}"));
        }
        metrics.forget_group(&claim(activity));
        assert!(!metrics.render().contains("accounts"));
    }
}
