//! Linearizable reads without the log (thesis, 6.4).
//!
//! A read must see every write that was acknowledged before it began. A leader's commit index covers those,
//! if it still is the leader and knows what earlier leaders have committed. So it
//! 1. waits until an entry of its own term is committed (then it knows),
//! 2. notes its commit index as the **read index**,
//! 3. sends a round of heartbeats, and waits until a quorum has answered it: nobody else can have been
//!    elected before the round began, so nobody else can have committed anything by then,
//! 4. answers when the state machine has applied everything up to the read index.
//!
//! One round serves all reads that came before it began; those that come while it is under way share the next
//! one. Where servers want to know how old their state is ([`super::staleness`]), there is a round with each
//! period of heartbeats, too; reads do not wait for that one. A follower asks the leader for a read index, likewise one question for all that wait, and then reads
//! its own state machine.

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

/// Whose read it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// This server's own.
    Here(Vec<u64>),
    /// The question of a follower.
    There(NodeId, u64),
}

/// A round of heartbeats that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    number: u64,
    /// Everything that was acknowledged before it began is in the log up to here.
    index: LogIndex,
    began: Instant,
    /// They wait for it; nobody, if it is the one of the period.
    readers: Vec<Reader>,
    /// Probes of followers that were there before.
    probes: Vec<(NodeId, u64)>,
}

/// A leader's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// The number of the last round.
    last: u64,
    /// In the order in which they began; at most one of those that reads wait for.
    under_way: VecDeque<Round>,
    /// They share the next round.
    waiting: Vec<Reader>,
}

impl Reads {
    /// The round that heartbeats belong to now.
    pub(super) fn round(&self) -> u64 {
        self.last
    }
}

/// What a follower has asked its leader, and has not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Forwarded {
    /// Begins anywhere, so that an answer to the server that was here before a crash is not taken for one to
    /// this.
    last_request: u64,
    asked: Vec<u64>,
    asked_at: Instant,
    waiting: Vec<u64>,
}

impl Forwarded {
    /// Where this server's numbers of questions begin.
    pub(super) fn log_start(&self) -> u64 {
        self.last_request & u64::from(u32::MAX)
    }

    pub(super) fn new(rng: &mut Rng) -> Self {
        Forwarded {
            last_request: rng.next_u64(),
            asked: Vec::new(),
            asked_at: Instant(0),
            waiting: Vec::new(),
        }
    }
}

impl super::leader::Leader {
    /// It leads no longer: its own reads cannot be answered here. Followers ask whoever comes next.
    pub(super) fn fail_reads(self, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let under_way = self.reads.under_way.into_iter().flat_map(|round| round.readers);
        let own = |reader| match reader {
            Reader::Here(ids) => ids,
            Reader::There(..) => Vec::new(),
        };
        let ids: Vec<u64> = under_way.chain(self.reads.waiting).flat_map(own).collect();
        if !ids.is_empty() {
            turn.outputs.push(Action::ReadFailed { ids, leader });
        }
    }
}

impl Raft {
    /// Reads that want to be linearizable. Each is answered by [`Action::ReadReady`] or
    /// [`Action::ReadFailed`]; who asks must not wait for ever, though, since the leader may be out of reach
    /// for long without another taking its place.
    pub fn read(&mut self, ids: Vec<u64>, turn: &mut Turn<'_>) {
        match &mut self.state {
            State::Leader(leader) => leader.reads.waiting.push(Reader::Here(ids)),
            State::Follower(follower) if follower.leader.is_some() => {
                self.forwarded.waiting.extend(ids);
                if self.forwarded.asked.is_empty() {
                    self.forward_reads(turn);
                }
            }
            _ => turn.outputs.push(Action::ReadFailed { ids, leader: None }),
        }
        self.settle(turn);
    }

    // ---- the leader ----

    /// A follower asks. It asks again if it gets no answer.
    pub(super) fn on_read_index(&mut self, from: NodeId, request: u64) {
        if let State::Leader(leader) = &mut self.state {
            leader.reads.waiting.push(Reader::There(from, request));
        }
    }

    /// Begins a round for the reads that wait, if none of theirs is under way.
    pub(super) fn start_reads(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let reads = &leader.reads;
        let busy = reads.under_way.iter().any(|round| !round.readers.is_empty());
        let wanted = !reads.waiting.is_empty() && !busy;
        // The first one is not put off until heartbeats are due.
        if wanted || self.setup.settings.ages && reads.last == 0 {
            self.start_round(turn);
        }
    }

    /// Heartbeats are due: where ages are asked for they are a round, unless one is under way. Then they repeat it.
    pub(super) fn start_due_round(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let wanted = self.setup.settings.ages && leader.reads.under_way.is_empty();
        if !wanted || !self.start_round(turn) {
            self.send_heartbeats(turn);
        }
    }

    /// Begins a round, for whoever waits; not before the leader knows what is committed.
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
        let busy = reads.under_way.iter().any(|round| !round.readers.is_empty());
        reads.under_way.push_back(Round {
            number: reads.last,
            index: self.log.commit(),
            began: turn.now.instant,
            readers: match busy {
                true => Vec::new(),
                false => std::mem::take(&mut reads.waiting),
            },
            probes: leader.progress.iter_mut().filter_map(probe).collect(),
        });
        self.send_heartbeats(turn);
        self.confirm_reads(turn);
        true
    }

    /// Ends the rounds that a quorum has answered.
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
        let rounds = &mut leader.reads.under_way;
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
            self.send(node, Body::Fresh { probe, index }, turn);
        }
        for reader in round.readers {
            match reader {
                Reader::Here(ids) => turn.outputs.push(Action::ReadReady { ids, index }),
                Reader::There(node, request) => {
                    self.send(node, Body::ReadIndexAnswer { request, index }, turn);
                }
            }
        }
    }

    // ---- the follower ----

    /// Asks the leader about all reads that wait.
    fn forward_reads(&mut self, turn: &mut Turn<'_>) {
        let Some(leader) = self.leader() else {
            return;
        };
        let forwarded = &mut self.forwarded;
        if forwarded.waiting.is_empty() {
            return;
        }
        forwarded.asked = std::mem::take(&mut forwarded.waiting);
        forwarded.last_request = forwarded.last_request.wrapping_add(1);
        forwarded.asked_at = turn.now.instant;
        let request = forwarded.last_request;
        self.send(leader, Body::ReadIndex { request }, turn);
    }

    /// The leader is there: a question that it has not answered may have been lost.
    pub(super) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        let heartbeat = self.setup.settings.timing.heartbeat;
        let (now, leader) = (turn.now.instant, self.leader());
        let forwarded = &mut self.forwarded;
        if let Some(leader) = leader
            && !forwarded.asked.is_empty()
            && now.since(forwarded.asked_at) >= heartbeat
        {
            forwarded.asked_at = now;
            let request = forwarded.last_request;
            self.send(leader, Body::ReadIndex { request }, turn);
        }
    }

    pub(super) fn on_read_index_answer(&mut self, request: u64, index: LogIndex, turn: &mut Turn<'_>) {
        if request != self.forwarded.last_request || self.forwarded.asked.is_empty() {
            return;
        }
        let ids = std::mem::take(&mut self.forwarded.asked);
        turn.outputs.push(Action::ReadReady { ids, index });
        self.forward_reads(turn);
    }

    /// The leader that was asked leads no more.
    pub(super) fn fail_forwarded(&mut self, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let mut ids = std::mem::take(&mut self.forwarded.asked);
        ids.append(&mut self.forwarded.waiting);
        if !ids.is_empty() {
            turn.outputs.push(Action::ReadFailed { ids, leader });
        }
    }
}
