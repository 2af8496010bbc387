//! The maximum age of a server's state, which stale reads report.
//!
//! The bound is a time on the server's own clock: everything that was acknowledged before it is in the state.
//! Recent contact with the leader does not prove that: the leader may have been deposed without knowing it,
//! its entries may be lost in transit, and received ones may not be applied yet. So the bound comes from a
//! request and its answer, as a read index does ([`super::read_index`]):
//! 1. A follower sends its leader a **probe** and records the time.
//! 2. The leader then starts a round of heartbeats, and records its commit index. A quorum that answers the
//!    round knew of no later leader when the round began; so everything acknowledged by then is at or before
//!    that index.
//! 3. It sends the index to the follower. When the follower has applied everything up to there, its state has
//!    what was acknowledged before the round began, and so before the probe was sent.
//!
//! A leader's own bound is the start of the round. No clocks are compared, and delays are harmless: a slow or
//! lost message only makes the bound wider. It grows during silence, and stays valid across leader changes.
//!
//! Each heartbeat interval has a round, and rounds for reads serve as well. So in a healthy group the bound
//! is between one and two intervals. This is done only for hosts that request it (`Settings::track_staleness`).

use std::collections::VecDeque;

use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;

use crate::message::Body;
use crate::server::{Raft, State, Turn};
use crate::types::LogIndex;

/// Maximum number of bounds that wait for entries to be applied. The last one stands for those after it.
const MAX_BOUNDS: usize = 64;

/// A probe in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Probe {
    number: u64,
    /// When it was first sent: the bound counts from here, whichever copy was answered.
    since: Instant,
    /// When it was last sent.
    sent: Instant,
}

/// What a server knows about the age of its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Staleness {
    /// Starts at a random number, so that an answer to a probe from before a crash does not match.
    last_probe: u64,
    probe: Option<Probe>,
    /// A state with everything up to the index has everything that was acknowledged before the instant. Both
    /// rise.
    bounds: VecDeque<(LogIndex, Instant)>,
}

impl Staleness {
    /// Nothing is known yet. Probes are numbered from `first` on.
    pub(super) fn new(first: u64) -> Self {
        Staleness {
            last_probe: first,
            probe: None,
            bounds: VecDeque::new(),
        }
    }

    /// The leader has changed: the pending probe is void.
    pub(super) fn reset_probe(&mut self) {
        self.probe = None;
    }

    /// The number of the probe to send now, if one is due.
    fn next_probe(&mut self, now: Instant, retry_after: std::time::Duration) -> Option<u64> {
        match &mut self.probe {
            Some(probe) if now.since(probe.sent) < retry_after => None,
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

    /// The leader has answered. Returns whether the answer is used.
    fn answered(&mut self, number: u64, index: LogIndex) -> bool {
        let Some(probe) = self.probe.take_if(|probe| probe.number == number) else {
            return false;
        };
        self.learn(index, probe.since);
        true
    }

    /// What was acknowledged before `since` is in the log up to `index`.
    pub(super) fn learn(&mut self, index: LogIndex, since: Instant) {
        // A later leader may have a lower commit index, but nothing less was acknowledged.
        while self
            .bounds
            .back()
            .is_some_and(|(last, before)| *last >= index && *before <= since)
        {
            self.bounds.pop_back();
        }
        if self.bounds.len() == MAX_BOUNDS {
            self.bounds.pop_back();
        }
        if self.bounds.back().is_none_or(|(_, before)| *before < since) {
            self.bounds.push_back((index, since));
        }
    }

    /// Everything up to here is applied: drops superseded bounds.
    fn applied(&mut self, index: LogIndex) {
        while self.bounds.get(1).is_some_and(|(later, _)| *later <= index) {
            self.bounds.pop_front();
        }
    }

    /// A state with everything up to `applied` has everything that was acknowledged before this.
    fn bound(&self, applied: LogIndex) -> Option<Instant> {
        let reached = self.bounds.iter().take_while(|(index, _)| *index <= applied);
        reached.last().map(|(_, since)| *since)
    }
}

impl Raft {
    /// A state with everything up to `applied` has everything that was acknowledged before this instant;
    /// `None` if nothing is known.
    pub fn fresh_since(&self, applied: LogIndex, now: Instant) -> Option<Instant> {
        if self.setup.bugs.has(Bug::AgeBySilence) {
            return self
                .heard_micros(now)
                .map(|micros| Instant(now.0.saturating_sub(micros)));
        }
        self.staleness.bound(applied)
    }

    /// The maximum age of a state with everything up to `applied`, in microseconds; `None` if nothing is
    /// known.
    pub fn age_micros(&self, applied: LogIndex, now: Instant) -> Option<u64> {
        let since = self.fresh_since(applied, now)?;
        Some(now.0.saturating_sub(since.0))
    }

    /// The host has applied everything up to here.
    pub fn applied(&mut self, applied: LogIndex) {
        self.staleness.applied(applied);
    }

    // ---- the follower ----

    /// The leader is alive: sends it a probe, unless one was sent recently.
    pub(super) fn probe(&mut self, leader: NodeId, turn: &mut Turn<'_>) {
        if !self.setup.settings.track_staleness {
            return;
        }
        let retry_after = 2 * self.setup.settings.timing.heartbeat;
        if let Some(probe) = self.staleness.next_probe(turn.now.instant, retry_after) {
            self.send(leader, Body::Probe { probe }, turn);
        }
    }

    /// The leader has answered. The next probe is sent before its next round.
    pub(super) fn on_probe_answer(&mut self, from: NodeId, probe: u64, index: LogIndex, turn: &mut Turn<'_>) {
        if self.staleness.answered(probe, index) {
            self.probe(from, turn);
        }
    }

    // ---- the leader ----

    /// A follower requests the commit index after the next round.
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
