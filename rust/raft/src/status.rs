//! A server's own view of itself and its group.

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::server::{Raft, State};
use crate::types::{LogIndex, LogPosition, Term};

/// What a server of a Raft group has done since its process started: counts that only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Activity {
    /// Heartbeats that it has sent as a leader, each to one member.
    pub heartbeats_sent: u64,
    /// And that were answered.
    pub heartbeats_answered: u64,
    /// Commands (writes; also the opening and closing of sessions) that it has put into the log and seen committed, all while
    /// it led in one term: summed up over the members, each counts once.
    pub commands: u64,
    /// Elections that it has won.
    pub elections_won: u64,
    /// How long the last of them took, from when it found that nobody leads, in microseconds.
    pub election_micros: u64,
}

/// The three states of Figure 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// It follows, or waits for someone to follow.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A server's own claim about itself and its group. Another server may claim otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// What it is.
    pub state: ServerState,
    /// In which term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Microseconds since it heard from the leader; 0 if it leads, `None` if it knows none.
    pub heard_micros: Option<u64>,
    /// Everything up to here is committed, as far as it knows.
    pub commit: LogIndex,
    /// Everything up to here has been given to its state machine.
    pub applied: LogIndex,
    /// Its last entry.
    pub last: LogPosition,
    /// What of its log is durable.
    pub stable: LogIndex,
    /// The last entry in its snapshot.
    pub snapshot: Option<LogPosition>,
    /// If it leads: how many entries each other member is not known to have durably.
    pub lag: Vec<(NodeId, u64)>,
    /// What it has done.
    pub activity: Activity,
}

impl Raft {
    /// Its own view of itself and the group, as it is now.
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
            snapshot: self.kept.as_ref().map(|kept| kept.meta.position),
            activity: self.activity,
            lag: match &self.state {
                State::Leader(leader) => leader.matched().map(lag).collect(),
                _ => Vec::new(),
            },
        }
    }
}
