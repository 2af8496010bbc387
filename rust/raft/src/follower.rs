//! How a follower handles its leader's messages (Figure 2, AppendEntries RPC).

use std::time::Duration;

use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;

use crate::action::Notice;
use crate::election::election_timeout;
use crate::entry::Entry;
use crate::message::Body;
use crate::server::{Raft, State, Turn};
use crate::settings::Timing;
use crate::types::{LogIndex, LogPosition};

/// A server that follows a leader, or waits for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    /// The leader of this term; `None` until one is known.
    pub(super) leader: Option<NodeId>,
    /// When the leader was last last_contact from.
    pub(super) last_contact: Option<Instant>,
    /// The election timeout.
    pub(super) timeout: Duration,
    /// When it starts an election.
    pub(super) deadline: Instant,
    /// The log is known to match the leader's up to here. Only rises: within a term a leader's log only
    /// grows.
    pub(super) received: LogIndex,
    /// The durable index that the leader was last sent.
    pub(super) acknowledged: LogIndex,
}

impl Follower {
    pub(super) fn new(leader: Option<NodeId>, timing: Timing, turn: &mut Turn<'_>) -> Self {
        let timeout = election_timeout(timing, turn.rng);
        Follower {
            leader,
            last_contact: None,
            timeout,
            deadline: turn.now.instant + timeout,
            received: LogIndex(0),
            acknowledged: LogIndex(0),
        }
    }

    /// The leader has sent a message. If its link has since gone down, the message does not show that it is
    /// alive.
    pub(super) fn leader_contact(&mut self, now: Instant, linked: bool) {
        self.last_contact = Some(now);
        if linked {
            self.deadline = now + self.timeout;
        }
    }
}

impl Raft {
    /// The state of a server that has just last_contact from its leader.
    pub(super) fn following(&mut self) -> &mut Follower {
        match &mut self.state {
            State::Follower(follower) => follower,
            state => panic!("received a leader's message in state {state:?}"),
        }
    }

    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        previous: LogPosition,
        commit: LogIndex,
        mut entries: Vec<Entry>,
        turn: &mut Turn<'_>,
    ) {
        let mut previous = previous;
        let end = previous.index.plus(entries.len());
        let committed = self.log.commit();
        if previous.index < committed {
            // What is committed here is in every later leader's log (leader completeness). It may be
            // compacted here.
            let known = (committed.0 - previous.index.0).min(entries.len() as u64);
            entries.drain(..known as usize);
            let term = self
                .log
                .term_at(committed)
                .expect("a committed entry is in the log or at its base");
            previous = LogPosition {
                term,
                index: committed,
            };
        } else if !self.log.matches(previous) {
            let conflict = self.log.conflict(previous.index);
            let previous = previous.index;
            return self.send(from, Body::Rejected { previous, conflict }, turn);
        }
        if let Some(from) = self.log.accept(previous, entries) {
            turn.notice(Notice::LogTruncated { from });
        }
        let matched = end.max(committed);
        let follower = self.following();
        follower.received = follower.received.max(matched);
        self.learn_commit(commit);
        if self.durable() >= end {
            self.acknowledge(from, turn);
        }
        self.probe(from, turn);
    }

    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: LogIndex, round: u64, turn: &mut Turn<'_>) {
        self.learn_commit(commit);
        let received = self.following().received;
        let durable = self.durable();
        let ack = Body::HeartbeatAck {
            round,
            received,
            durable,
        };
        self.send(from, ack, turn);
        self.retry_read_index(turn);
        self.probe(from, turn);
    }

    /// The leader has committed everything up to here; this server commits what is known to match.
    fn learn_commit(&mut self, commit: LogIndex) {
        let received = self.following().received;
        self.log.commit_to(commit.min(received));
    }

    /// How far this server has the leader's log durably.
    fn durable(&mut self) -> LogIndex {
        let received = self.following().received;
        if self.setup.bugs.has(Bug::RaftAckBeforeDurable) {
            return received;
        }
        if self.log.has_cut() || self.stable.is_fenced() {
            return LogIndex(0);
        }
        received.min(self.log.stable())
    }

    pub(super) fn acknowledge(&mut self, leader: NodeId, turn: &mut Turn<'_>) {
        let through = self.durable();
        self.following().acknowledged = through;
        self.send(leader, Body::Accepted { through }, turn);
    }

    /// A persist has completed: acknowledges it to the leader if the durable index has risen.
    pub(super) fn acknowledge_progress(&mut self, turn: &mut Turn<'_>) {
        let State::Follower(follower) = &self.state else {
            return;
        };
        let (Some(leader), acknowledged) = (follower.leader, follower.acknowledged) else {
            return;
        };
        if self.durable() > acknowledged {
            self.acknowledge(leader, turn);
        }
    }
}
