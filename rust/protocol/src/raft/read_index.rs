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
//! one. A follower asks the leader for a read index, likewise one question for all that wait, and then reads
//! its own state machine.

use rand_core::Rng as _;

use crate::ids::NodeId;
use crate::raft::message::Body;
use crate::raft::output::Output;
use crate::raft::server::{Raft, State, Turn};
use crate::raft::types::LogIndex;
use crate::role::Rng;
use crate::time::Instant;

/// Whose read it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reader {
    /// This server's own.
    Here(Vec<u64>),
    /// The question of a follower.
    There(NodeId, u64),
}

/// The round of heartbeats that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    /// What the reads in it will see at least.
    index: LogIndex,
    readers: Vec<Reader>,
}

/// A leader's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// The number of the last round.
    last: u64,
    under_way: Option<Round>,
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
            turn.outputs.push(Output::ReadFailed { ids, leader });
        }
    }
}

impl Raft {
    /// Reads that want to be linearizable. Each is answered by [`Output::ReadReady`] or
    /// [`Output::ReadFailed`]; who asks must not wait for ever, though, since the leader may be out of reach
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
            _ => turn.outputs.push(Output::ReadFailed { ids, leader: None }),
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

    /// Begins a round for the reads that wait, if none is under way.
    pub(super) fn start_reads(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let knows_commit = self.log.commit() >= leader.first;
        if leader.reads.under_way.is_some() || leader.reads.waiting.is_empty() || !knows_commit {
            return;
        }
        leader.reads.last += 1;
        leader.reads.under_way = Some(Round {
            index: self.log.commit(),
            readers: std::mem::take(&mut leader.reads.waiting),
        });
        leader.beat(self.hard.term, self.log.commit(), turn.outputs);
        self.confirm_reads(turn);
    }

    /// Ends the round if a quorum has answered it.
    pub(super) fn confirm_reads(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(round) = &leader.reads.under_way else {
            return;
        };
        let last = leader.reads.last;
        let me = self.setup.me;
        let answered = |node: NodeId| match leader.progress.get(&node) {
            Some(progress) => progress.round,
            None if node == me => last,
            None => 0,
        };
        let confirmed = self.log.configuration().agreed(answered) >= Some(last);
        if !confirmed && !self.setup.bugs.stale_read_index {
            return;
        }
        let index = round.index;
        let round = leader.reads.under_way.take().expect("it is under way");
        for reader in round.readers {
            match reader {
                Reader::Here(ids) => turn.outputs.push(Output::ReadReady { ids, index }),
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
        turn.outputs.push(Output::ReadReady { ids, index });
        self.forward_reads(turn);
    }

    /// The leader that was asked leads no more.
    pub(super) fn fail_forwarded(&mut self, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let mut ids = std::mem::take(&mut self.forwarded.asked);
        ids.append(&mut self.forwarded.waiting);
        if !ids.is_empty() {
            turn.outputs.push(Output::ReadFailed { ids, leader });
        }
    }
}
