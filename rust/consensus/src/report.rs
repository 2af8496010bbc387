//! Reports of a group's server: the timeline, and its claim about itself and the group.

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::{GroupClaim, GroupState};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::action::Notice;
use quorate_raft::server::Raft;
use quorate_raft::status::{Activity, ServerState};
use quorate_raft::types::GroupId;

/// The timeline event of a notice; `None` if it is not reported.
pub(crate) fn timeline(group: GroupId, notice: &Notice) -> Option<TimelineEvent> {
    Some(match notice {
        Notice::Campaigning { pre: true, .. } => return None,
        Notice::Campaigning { term, pre: false } => TimelineEvent::ElectionStarted { group, term: term.0 },
        Notice::Leading { term } => TimelineEvent::LeaderElected { group, term: term.0 },
        Notice::Following { term, leader } => TimelineEvent::LeaderChanged {
            group,
            term: term.0,
            leader: *leader,
        },
        Notice::QuorumLost { term } => TimelineEvent::QuorumLost { group, term: term.0 },
        Notice::LogTruncated { from } => TimelineEvent::LogCut { group, from: from.0 },
        Notice::SnapshotTaken { position } => TimelineEvent::SnapshotTaken {
            group,
            index: position.index.0,
        },
        Notice::SnapshotInstalled { position } => TimelineEvent::SnapshotInstalled {
            group,
            index: position.index.0,
        },
        Notice::SnapshotCorrupt { position } => TimelineEvent::SnapshotCorrupt {
            group,
            index: position.index.0,
        },
        Notice::StorageFull => TimelineEvent::StorageFull,
        Notice::MessageRejected { from, reason } => TimelineEvent::MessageRejected {
            group,
            from: *from,
            reason: reason.to_string(),
        },
        Notice::TermsExhausted { term } => TimelineEvent::TermsExhausted { group, term: term.0 },
    })
}

/// The server's claim. `raft` is present once recovered; `problem` is the reason of a failure.
pub(crate) fn claim(
    (group, name): (GroupId, &str),
    node: NodeId,
    raft: Option<&Raft>,
    problem: Option<&str>,
    elections: u64,
    now: Instant,
) -> GroupClaim {
    let mut claim = GroupClaim {
        group,
        name: name.to_owned(),
        node,
        state: match problem {
            Some(_) => GroupState::Broken,
            None => GroupState::Recovering,
        },
        term: 0,
        leader: None,
        heard_micros: None,
        commit: 0,
        applied: 0,
        last: 0,
        snapshot: 0,
        voters: Vec::new(),
        learners: Vec::new(),
        lag: Vec::new(),
        elections,
        problem: problem.map(str::to_owned),
        activity: Activity::default(),
    };
    if let Some(raft) = raft {
        let (status, configuration) = (raft.status(now), raft.configuration());
        claim.state = match status.state {
            ServerState::Follower => GroupState::Follower,
            ServerState::Candidate => GroupState::Candidate,
            ServerState::Leader => GroupState::Leader,
        };
        claim.term = status.term.0;
        claim.leader = status.leader;
        claim.heard_micros = status.heard_micros;
        claim.commit = status.commit.0;
        claim.applied = status.applied.0;
        claim.last = status.last.index.0;
        claim.snapshot = status.snapshot.map_or(0, |position| position.index.0);
        claim.voters = configuration.all_voters().collect();
        claim.learners = configuration.learners.iter().copied().collect();
        claim.lag = status.lag;
        claim.activity = status.activity;
    }
    claim
}
