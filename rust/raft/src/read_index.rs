//! Linearizable reads without the log (thesis, 6.4).
//!
//! A read must see every write that was acknowledged before it began. A leader's commit index covers those,
//! if it still is the leader and knows what earlier leaders have committed. So it
//! 1. waits until an entry of its own term is committed (then it knows),
//! 2. records its commit index as the **read index**,
//! 3. sends a round of heartbeats, and waits until a quorum has answered it: then no other leader was elected
//!    before the round began, and none can have committed anything by then,
//! 4. answers when the state machine has applied everything up to the read index.
//!
//! One round serves all reads that came before it began; reads that arrive during a round share the next one.
//! If servers track the age of their state ([`super::staleness`]), each heartbeat interval also has a round;
//! reads do not wait for that one. A follower requests a read index from the leader, likewise one request for
//! all pending reads, and then reads its own state machine.

use std::collections::VecDeque;

use quorate_core::bugs::Bug;
use quorate_core::contract::Rng;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use rand_core::Rng as _;

use crate::action::Action;
use crate::message::Body;
use crate::progress::Progress;
use crate::server::{Raft, State, Turn};
use crate::types::LogIndex;

/// The origin of a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// Reads of this server.
    Local(Vec<u64>),
    /// A follower's request.
    Remote(NodeId, u64),
}

/// A round of heartbeats in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    number: u64,
    /// Everything that was acknowledged before the round began is in the log up to here.
    index: LogIndex,
    began: Instant,
    /// The reads that wait for it; none in the round of a heartbeat interval.
    readers: Vec<Reader>,
    /// Followers' probes that arrived before it began.
    probes: Vec<(NodeId, u64)>,
}

/// A leader's pending reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// The number of the last round.
    last: u64,
    /// In the order in which they began; at most one that reads wait for.
    in_flight: VecDeque<Round>,
    /// Reads for the next round.
    pending: Vec<Reader>,
}

impl Reads {
    /// The current round of heartbeats.
    pub(super) fn round(&self) -> u64 {
        self.last
    }
}

/// A follower's read index requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Forwarded {
    /// Starts at a random number, so that an answer to a request from before a crash does not match.
    last_request: u64,
    requested: Vec<u64>,
    requested_at: Instant,
    pending: Vec<u64>,
}

impl Forwarded {
    /// The number of the first request.
    pub(super) fn first_request(&self) -> u64 {
        self.last_request & u64::from(u32::MAX)
    }

    pub(super) fn new(rng: &mut Rng) -> Self {
        Forwarded {
            last_request: rng.next_u64(),
            requested: Vec::new(),
            requested_at: Instant(0),
            pending: Vec::new(),
        }
    }
}

impl super::leader::Leader {
    /// Steps down: fails its own reads. Followers ask the next leader.
    pub(super) fn fail_reads(self, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let in_flight = self.reads.in_flight.into_iter().flat_map(|round| round.readers);
        let own = |reader| match reader {
            Reader::Local(ids) => ids,
            Reader::Remote(..) => Vec::new(),
        };
        let ids: Vec<u64> = in_flight.chain(self.reads.pending).flat_map(own).collect();
        if !ids.is_empty() {
            turn.actions.push(Action::ReadFailed { ids, leader });
        }
    }
}

impl Raft {
    /// Starts linearizable reads. Each is answered by [`Action::ReadReady`] or [`Action::ReadFailed`]; the
    /// caller needs a deadline, since the leader may be unreachable for long without being replaced.
    pub fn read(&mut self, ids: Vec<u64>, turn: &mut Turn<'_>) {
        match &mut self.state {
            State::Leader(leader) => leader.reads.pending.push(Reader::Local(ids)),
            State::Follower(follower) if follower.leader.is_some() => {
                self.forwarded.pending.extend(ids);
                if self.forwarded.requested.is_empty() {
                    self.forward_reads(turn);
                }
            }
            _ => turn.actions.push(Action::ReadFailed { ids, leader: None }),
        }
        self.advance(turn);
    }

    // ---- the leader ----

    /// A follower requests a read index. It retries without an answer.
    pub(super) fn on_read_index(&mut self, from: NodeId, request: u64) {
        if let State::Leader(leader) = &mut self.state {
            leader.reads.pending.push(Reader::Remote(from, request));
        }
    }

    /// Starts a round for the pending reads, if none of theirs is in flight.
    pub(super) fn start_reads(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let reads = &leader.reads;
        let busy = reads.in_flight.iter().any(|round| !round.readers.is_empty());
        let wanted = !reads.pending.is_empty() && !busy;
        // The first round does not wait until heartbeats are due.
        if wanted || self.setup.settings.track_staleness && reads.last == 0 {
            self.start_round(turn);
        }
    }

    /// Heartbeats are due: with staleness tracking they are a round, unless one is in flight. Then they
    /// repeat it.
    pub(super) fn start_due_round(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let wanted = self.setup.settings.track_staleness && leader.reads.in_flight.is_empty();
        if !wanted || !self.start_round(turn) {
            self.send_heartbeats(turn);
        }
    }

    /// Starts a round, once the leader knows what is committed.
    fn start_round(&mut self, turn: &mut Turn<'_>) -> bool {
        let State::Leader(leader) = &mut self.state else {
            return false;
        };
        if self.log.commit() < leader.first {
            return false;
        }
        let reads = &mut leader.reads;
        reads.last += 1;
        let probe = |(node, progress): (&NodeId, &mut Progress)| Some((*node, progress.probe.take()?));
        let busy = reads.in_flight.iter().any(|round| !round.readers.is_empty());
        reads.in_flight.push_back(Round {
            number: reads.last,
            index: self.log.commit(),
            began: turn.now.instant,
            readers: match busy {
                true => Vec::new(),
                false => std::mem::take(&mut reads.pending),
            },
            probes: leader.progress.iter_mut().filter_map(probe).collect(),
        });
        self.send_heartbeats(turn);
        self.confirm_reads(turn);
        true
    }

    /// Completes the rounds that a quorum has answered.
    pub(super) fn confirm_reads(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let last = leader.reads.last;
        let me = self.setup.me;
        let answered = |node: NodeId| match leader.progress.get(&node) {
            Some(progress) => progress.round,
            None if node == me => last,
            None => 0,
        };
        let confirmed = match self.setup.bugs.has(Bug::StaleReadIndex) {
            true => last,
            false => self.log.configuration().agreed(answered).unwrap_or(0),
        };
        let rounds = &mut leader.reads.in_flight;
        let ended = rounds
            .iter()
            .take_while(|round| round.number <= confirmed)
            .count();
        for round in rounds.drain(..ended).collect::<Vec<_>>() {
            self.end_round(round, turn);
        }
    }

    fn end_round(&mut self, round: Round, turn: &mut Turn<'_>) {
        let index = round.index;
        self.staleness.learn(index, round.began);
        for (node, probe) in round.probes {
            self.send(node, Body::ProbeAnswer { probe, index }, turn);
        }
        for reader in round.readers {
            match reader {
                Reader::Local(ids) => turn.actions.push(Action::ReadReady { ids, index }),
                Reader::Remote(node, request) => {
                    self.send(node, Body::ReadIndexAnswer { request, index }, turn);
                }
            }
        }
    }

    // ---- the follower ----

    /// Requests a read index for all pending reads.
    fn forward_reads(&mut self, turn: &mut Turn<'_>) {
        let Some(leader) = self.leader() else {
            return;
        };
        let forwarded = &mut self.forwarded;
        if forwarded.pending.is_empty() {
            return;
        }
        forwarded.requested = std::mem::take(&mut forwarded.pending);
        forwarded.last_request = forwarded.last_request.wrapping_add(1);
        forwarded.requested_at = turn.now.instant;
        let request = forwarded.last_request;
        self.send(leader, Body::ReadIndex { request }, turn);
    }

    /// The leader is alive: retries an unanswered request, which may have been lost.
    pub(super) fn retry_read_index(&mut self, turn: &mut Turn<'_>) {
        let heartbeat = self.setup.settings.timing.heartbeat;
        let (now, leader) = (turn.now.instant, self.leader());
        let forwarded = &mut self.forwarded;
        if let Some(leader) = leader
            && !forwarded.requested.is_empty()
            && now.since(forwarded.requested_at) >= heartbeat
        {
            forwarded.requested_at = now;
            let request = forwarded.last_request;
            self.send(leader, Body::ReadIndex { request }, turn);
        }
    }

    pub(super) fn on_read_index_answer(&mut self, request: u64, index: LogIndex, turn: &mut Turn<'_>) {
        if request != self.forwarded.last_request || self.forwarded.requested.is_empty() {
            return;
        }
        let ids = std::mem::take(&mut self.forwarded.requested);
        turn.actions.push(Action::ReadReady { ids, index });
        self.forward_reads(turn);
    }

    /// The leader has changed: fails the pending reads.
    pub(super) fn fail_forwarded(&mut self, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let mut ids = std::mem::take(&mut self.forwarded.requested);
        ids.append(&mut self.forwarded.pending);
        if !ids.is_empty() {
            turn.actions.push(Action::ReadFailed { ids, leader });
        }
    }
}
