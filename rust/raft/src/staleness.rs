//! How old a server's state may be: what a stale read tells of itself.
//!
//! The bound is a time by the server's own clock, with the promise that everything that anybody was told before it is in
//! the state. That the leader was heard of a moment ago promises nothing of the kind: it may have been deposed without
//! knowing, its entries may be lost on their way here, and those that came may not have been applied. So the bound is
//! made from the two ends of a question, as a read index is ([`super::read_index`]):
//! 1. A follower sends its leader a **probe** and notes when.
//! 2. The leader begins a round of heartbeats after that, and notes its commit index. A quorum that answers the round
//!    knew of no later leader when the round began; so nothing that was acknowledged by then stands behind that index.
//! 3. It tells the follower the index. When the follower has applied everything up to there, its state has what was
//!    acknowledged before the round began, and so before the probe was sent.
//!
//! A leader's own bound is the beginning of the round. No clocks are compared, and no message needs to be fast: one that
//! takes long, or is lost, makes the bound wider. It grows while nothing is heard, and goes on to be true whoever leads.
//!
//! There is a round with each period of heartbeats, and those that reads need serve, too. So in a healthy group the bound is
//! between one and two periods. All this is done only for hosts that want it (`Settings::ages`).

use std::collections::VecDeque;

use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;

use crate::message::Body;
use crate::server::{Raft, State, Turn};
use crate::types::LogIndex;

/// So many bounds wait for entries to be applied. Where there are more, the last one stands for those after it.
const MOST_WAITING: usize = 64;

/// A question of which the answer is to come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Probe {
    number: u64,
    /// When it was first sent: the answer counts from here, whichever of its copies was answered.
    since: Instant,
    /// When it was last sent.
    sent: Instant,
}

/// What a server knows about the age of its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Staleness {
    /// Begins anywhere, so that an answer to the server that was here before a crash is not taken for one to this.
    last_probe: u64,
    probe: Option<Probe>,
    /// Whoever has applied everything up to the index has everything that was acknowledged before the instant. Both rise.
    bounds: VecDeque<(LogIndex, Instant)>,
}

impl Staleness {
    /// Nothing is known yet. Probes are numbered from a random number on.
    pub(super) fn new(first: u64) -> Self {
        Staleness {
            last_probe: first,
            probe: None,
            bounds: VecDeque::new(),
        }
    }

    /// Another leads: whoever was asked does not matter any more.
    pub(super) fn ask_anew(&mut self) {
        self.probe = None;
    }

    /// The number of the probe to send now, if one is due.
    fn ask(&mut self, now: Instant, patience: std::time::Duration) -> Option<u64> {
        match &mut self.probe {
            Some(probe) if now.since(probe.sent) < patience => None,
            Some(probe) => {
                probe.sent = now;
                Some(probe.number)
            }
            None => {
                self.last_probe = self.last_probe.wrapping_add(1);
                self.probe = Some(Probe {
                    number: self.last_probe,
                    since: now,
                    sent: now,
                });
                Some(self.last_probe)
            }
        }
    }

    /// The leader has answered; says whether that was news.
    fn answered(&mut self, number: u64, index: LogIndex) -> bool {
        let Some(probe) = self.probe.take_if(|probe| probe.number == number) else {
            return false;
        };
        self.learn(index, probe.since);
        true
    }

    /// What was acknowledged before `since` is in the log up to `index`.
    pub(super) fn learn(&mut self, index: LogIndex, since: Instant) {
        // A later leader may know less of what is committed, but nothing less was acknowledged.
        while self
            .bounds
            .back()
            .is_some_and(|(last, before)| *last >= index && *before <= since)
        {
            self.bounds.pop_back();
        }
        if self.bounds.len() == MOST_WAITING {
            self.bounds.pop_back();
        }
        if self.bounds.back().is_none_or(|(_, before)| *before < since) {
            self.bounds.push_back((index, since));
        }
    }

    /// Everything up to here is applied: bounds that are surpassed are forgotten.
    fn applied(&mut self, index: LogIndex) {
        while self.bounds.get(1).is_some_and(|(later, _)| *later <= index) {
            self.bounds.pop_front();
        }
    }

    /// A state with everything up to `applied` has what was acknowledged before this.
    fn bound(&self, applied: LogIndex) -> Option<Instant> {
        let reached = self.bounds.iter().take_while(|(index, _)| *index <= applied);
        reached.last().map(|(_, since)| *since)
    }
}

impl Raft {
    /// Everything up to `applied` is in the state: says since when it may lack something. What was acknowledged before
    /// that instant is there; `None` if nothing is known.
    pub fn fresh_since(&self, applied: LogIndex, now: Instant) -> Option<Instant> {
        if self.setup.bugs.has(Bug::AgeBySilence) {
            return self
                .heard_micros(now)
                .map(|micros| Instant(now.0.saturating_sub(micros)));
        }
        self.staleness.bound(applied)
    }

    /// How old a state may be that has everything up to `applied`, in microseconds; `None` if nothing is known.
    pub fn age_micros(&self, applied: LogIndex, now: Instant) -> Option<u64> {
        let since = self.fresh_since(applied, now)?;
        Some(now.0.saturating_sub(since.0))
    }

    /// The host has applied everything up to here.
    pub fn applied(&mut self, applied: LogIndex) {
        self.staleness.applied(applied);
    }

    // ---- the follower ----

    /// The leader is there: it is asked how far it is, unless it was a moment ago.
    pub(super) fn probe(&mut self, leader: NodeId, turn: &mut Turn<'_>) {
        if !self.setup.settings.ages {
            return;
        }
        let patience = 2 * self.setup.settings.timing.heartbeat;
        if let Some(probe) = self.staleness.ask(turn.now.instant, patience) {
            self.send(leader, Body::Probe { probe }, turn);
        }
    }

    /// The leader has answered. The next question is there before the next round.
    pub(super) fn on_fresh(&mut self, from: NodeId, probe: u64, index: LogIndex, turn: &mut Turn<'_>) {
        if self.staleness.answered(probe, index) {
            self.probe(from, turn);
        }
    }

    // ---- the leader ----

    /// A follower wants to know how far the leader is, in its next round.
    pub(super) fn on_probe(&mut self, from: NodeId, probe: u64) {
        if let State::Leader(leader) = &mut self.state
            && let Some(progress) = leader.progress.get_mut(&from)
        {
            progress.probe = Some(probe);
        }
    }
}

#[cfg(test)]
#[path = "staleness_tests.rs"]
mod tests;
