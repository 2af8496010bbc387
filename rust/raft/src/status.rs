//! A server's view of itself and its group.

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::server::{Raft, State};
use crate::types::{LogIndex, LogPosition, Term};

/// Counters of a server since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Activity {
    /// Heartbeats sent as leader, one per member.
    pub heartbeats_sent: u64,
    /// Heartbeats answered.
    pub heartbeats_answered: u64,
    /// Commands (writes; also the opening and closing of sessions) that it appended and saw committed while
    /// leading in one term: summed over the members, each counts once.
    pub commands: u64,
    /// Elections won.
    pub elections_won: u64,
    /// Duration of the last won election, from the loss of the old leader, in microseconds.
    pub election_micros: u64,
}

/// The three states of Figure 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// A server that follows a leader, or waits for one.
    Follower,
    /// A server that requests votes.
    Candidate,
    /// A leader.
    Leader,
}

/// A server's view of itself and its group. Another server's may differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Its state.
    pub state: ServerState,
    /// Its term.
    pub term: Term,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Microseconds since it heard from the leader; 0 if it leads, `None` without a leader.
    pub heard_micros: Option<u64>,
    /// The highest index known to be committed.
    pub commit: LogIndex,
    /// The last entry given to its state machine.
    pub applied: LogIndex,
    /// Its last entry.
    pub last: LogPosition,
    /// The last durable entry of its log.
    pub stable: LogIndex,
    /// The last entry in its snapshot.
    pub snapshot: Option<LogPosition>,
    /// If it leads: the number of entries that each other member is not known to have durably.
    pub lag: Vec<(NodeId, u64)>,
    /// Its counters.
    pub activity: Activity,
}

impl Raft {
    /// The server's current status.
    pub fn status(&self, now: Instant) -> Status {
        let state = match &self.state {
            State::Follower(_) => ServerState::Follower,
            State::Candidate(_) => ServerState::Candidate,
            State::Leader(_) => ServerState::Leader,
        };
        let lag = |(node, matched): (NodeId, LogIndex)| (node, self.log.last().index.0 - matched.0);
        Status {
            state,
            term: self.hard.term,
            leader: self.leader(),
            heard_micros: self.heard_micros(now),
            commit: self.log.commit(),
            applied: self.log.released(),
            last: self.log.last(),
            stable: self.log.stable(),
            snapshot: self
                .snapshot_ref
                .as_ref()
                .map(|snapshot_ref| snapshot_ref.meta.position),
            activity: self.activity,
            lag: match &self.state {
                State::Leader(leader) => leader.matched().map(lag).collect(),
                _ => Vec::new(),
            },
        }
    }
}
