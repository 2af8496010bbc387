//! A leader's knowledge of one other member, and what it may send to it (thesis, 10.2; the three states are
//! etcd's).
//!
//! * **Probe**: the leader does not know where the member's log ends or begins to differ. One append at a
//!   time, until one is accepted.
//! * **Replicate**: it knows. Appends are pipelined, up to the window; while that is full, new entries
//!   accumulate and share the next append. This is all the batching there is, and it needs no timer.
//! * **Snapshot**: the member lacks entries that are compacted here. It receives the snapshot, in chunks,
//!   with a window of their own.
//!
//! Lost or reordered messages show as a rejection, or as missing acknowledgements of entries that were sent;
//! either way the member returns to probing, after the last entry that it is known to have.

use std::collections::VecDeque;

use quorate_core::time::Instant;

use crate::log::Log;
use crate::snapshot::Transfer;
use crate::types::{LogIndex, LogPosition, Term};

/// The replication state of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProgressState {
    /// One append at a time; the next one not before `pause`.
    Probe { pause: Instant },
    /// The last entries of the appends in flight.
    Replicate { window: VecDeque<LogIndex> },
    /// Sending chunks of a snapshot.
    Snapshot(Transfer),
}

/// A leader's view of one other member.
///
/// Invariant: `matched < next`. `matched` only rises while the leader leads: it was durable there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// The member has this leader's log durably up to here.
    pub(super) matched: LogIndex,
    /// The next entry to send.
    pub(super) next: LogIndex,
    pub(super) state: ProgressState,
    /// When it last answered.
    pub(super) last_contact: Instant,
    /// The last round of heartbeats that it has answered.
    pub(super) round: u64,
    /// A probe to be answered after the next round.
    pub(super) probe: Option<u64>,
    /// Its log matches up to here, durable or not.
    received: LogIndex,
    /// When that last rose, or something was sent after everything had been received.
    moved: Instant,
    /// Its link is down: only heartbeats are sent, until one is answered.
    pub(super) link_down: bool,
}

/// The next probe may be sent at once.
const NOW: Instant = Instant(0);

impl Progress {
    /// A member of which the leader knows nothing; its own last entry is the first guess.
    pub(super) fn new(last: LogIndex, link_down: bool, now: Instant) -> Self {
        Progress {
            matched: LogIndex(0),
            next: last.next(),
            state: ProgressState::Probe { pause: NOW },
            last_contact: now,
            round: 0,
            probe: None,
            received: LogIndex(0),
            moved: now,
            link_down,
        }
    }

    /// Returns to probing, after the last entry that the member is known to have.
    pub(super) fn probe(&mut self) {
        self.next = self.matched.max(self.received).next();
        self.state = ProgressState::Probe { pause: NOW };
    }

    /// How many appends may be sent now.
    pub(super) fn room(&self, window_size: usize, now: Instant) -> usize {
        match &self.state {
            _ if self.link_down => 0,
            ProgressState::Probe { pause } => usize::from(*pause <= now),
            ProgressState::Replicate { window } => window_size.saturating_sub(window.len()),
            ProgressState::Snapshot(_) => 0,
        }
    }

    /// An append up to `last` is sent. A lost probe is repeated at `retry`.
    pub(super) fn sent(&mut self, last: LogIndex, now: Instant, retry: Instant) {
        match &mut self.state {
            ProgressState::Probe { pause } => *pause = retry,
            ProgressState::Replicate { window } => {
                if self.received.next() >= self.next {
                    self.moved = now;
                }
                window.push_back(last);
                self.next = last.next();
            }
            ProgressState::Snapshot(_) => panic!("an append was sent during a snapshot transfer"),
        }
    }

    /// The member has the log durably up to here.
    pub(super) fn accepted(&mut self, through: LogIndex, base: LogIndex, now: Instant) {
        self.matched = self.matched.max(through);
        self.received(through, now);
        self.next = self.next.max(self.matched.next());
        match &mut self.state {
            ProgressState::Probe { .. } => {
                self.state = ProgressState::Replicate {
                    window: VecDeque::new(),
                };
                self.next = self.matched.max(self.received).next();
            }
            ProgressState::Replicate { window } => {
                while window.front().is_some_and(|last| *last <= through) {
                    window.pop_front();
                }
            }
            // The member has what it needs, from this leader's snapshot or otherwise.
            ProgressState::Snapshot(_) if self.matched >= base => self.probe(),
            ProgressState::Snapshot(_) => {}
        }
    }

    /// The member does not have the entry at `previous`.
    pub(super) fn rejected(&mut self, previous: LogIndex, conflict: LogPosition, log: &Log) {
        let stale = match self.state {
            ProgressState::Probe { .. } => previous != self.next.previous(),
            ProgressState::Replicate { .. } => previous <= self.matched,
            ProgressState::Snapshot(_) => true,
        };
        if stale {
            return;
        }
        // The member's entries of the conflicting term begin at `conflict`. If this log has that term, the
        // logs may agree up to its last entry here; if not, no entry of that term can agree.
        let behind = if conflict.term == Term(0) {
            conflict.index.previous()
        } else {
            let last = log.last_not_after(conflict.term);
            if log.term_at(last) == Some(conflict.term) {
                last
            } else {
                conflict.index.previous()
            }
        };
        self.next = behind.min(previous.previous()).max(self.matched).next();
        // The member may have crashed and lost what was not durable.
        self.received = self.received.min(self.next.previous());
        self.state = ProgressState::Probe { pause: NOW };
    }

    /// What the member has received, from a heartbeat's answer: reveals lost appends that nothing followed.
    pub(super) fn beat(&mut self, received: LogIndex, now: Instant, overdue: Instant) {
        self.received(received, now);
        let lost = received.next() < self.next && self.moved <= overdue;
        if lost && matches!(self.state, ProgressState::Replicate { .. }) {
            self.probe();
        }
    }

    fn received(&mut self, through: LogIndex, now: Instant) {
        if through > self.received {
            self.received = through;
            self.moved = now;
        }
    }
}
