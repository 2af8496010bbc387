//! What a leader knows about one other member, and what it may send there (thesis, 10.2; the three flows are
//! etcd's).
//!
//! * **Probe**: the leader does not know where the member's log ends or where it begins to differ. One append
//!   at a time, until one is accepted.
//! * **Replicate**: it knows. Appends go out one after the other without waiting, as many as the window
//!   takes; while it is full, new entries gather and go together in the next append. That is all the batching
//!   there is, and it needs no timer.
//! * **Snapshot**: the member lacks entries that are gone here. It gets the snapshot, in chunks, with a
//!   window of their own.
//!
//! Whatever is lost or comes out of order shows as a rejection, or as silence about entries that were sent;
//! either way the member goes back to probing, from the last entry that it is known to have.

use std::collections::VecDeque;

use quorate_core::time::Instant;

use crate::log::Log;
use crate::snapshot::Transfer;
use crate::types::{LogIndex, LogPosition, Term};

/// How a member is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProgressState {
    /// One append at a time; the next one not before this.
    Probe { pause: Instant },
    /// The last entries of the appends that are on their way.
    Replicate { window: VecDeque<LogIndex> },
    /// Chunks of a snapshot.
    Snapshot(Transfer),
}

/// A leader's view of one other member.
///
/// Invariant: `matched < next`. `matched` only rises while the leader leads: it was durable there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// The member has this leader's log durably up to here.
    pub(super) matched: LogIndex,
    /// The first entry that it will be sent next.
    pub(super) next: LogIndex,
    pub(super) state: ProgressState,
    /// When it last answered.
    pub(super) heard: Instant,
    /// The last round of heartbeats that it has answered.
    pub(super) round: u64,
    /// It wants to know how far the leader is, in the next round.
    pub(super) probe: Option<u64>,
    /// Its log matches up to here, durable or not.
    received: LogIndex,
    /// When that last rose, or something was sent after everything had been received.
    moved: Instant,
    /// Its link is broken: nothing is sent but heartbeats, until one is answered.
    pub(super) cut_off: bool,
}

/// When the next probe may go at once.
const NOW: Instant = Instant(0);

impl Progress {
    /// A member of which the leader knows nothing; its own last entry is the first guess.
    pub(super) fn new(last: LogIndex, cut_off: bool, now: Instant) -> Self {
        Progress {
            matched: LogIndex(0),
            next: last.next(),
            state: ProgressState::Probe { pause: NOW },
            heard: now,
            round: 0,
            probe: None,
            received: LogIndex(0),
            moved: now,
            cut_off,
        }
    }

    /// Starts over behind what it is known to have.
    pub(super) fn probe(&mut self) {
        self.next = self.matched.max(self.received).next();
        self.state = ProgressState::Probe { pause: NOW };
    }

    /// How many appends may go out now.
    pub(super) fn room(&self, window_size: usize, now: Instant) -> usize {
        match &self.state {
            _ if self.cut_off => 0,
            ProgressState::Probe { pause } => usize::from(*pause <= now),
            ProgressState::Replicate { window } => window_size.saturating_sub(window.len()),
            ProgressState::Snapshot(_) => 0,
        }
    }

    /// An append up to `last` goes out. A lost probe is repeated at `retry`.
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
            ProgressState::Snapshot(_) => panic!("no appends while a snapshot is sent"),
        }
    }

    /// It has the log durably up to here.
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
            // It has got what it needs, from this leader's snapshot or otherwise.
            ProgressState::Snapshot(_) if self.matched >= base => self.probe(),
            ProgressState::Snapshot(_) => {}
        }
    }

    /// It does not have the entry at `previous`.
    pub(super) fn rejected(&mut self, previous: LogIndex, conflict: LogPosition, log: &Log) {
        let stale = match self.state {
            ProgressState::Probe { .. } => previous != self.next.previous(),
            ProgressState::Replicate { .. } => previous <= self.matched,
            ProgressState::Snapshot(_) => true,
        };
        if stale {
            return;
        }
        // Its entries of the conflicting term begin at `conflict`. If this log has that term, it may agree up
        // to the last entry of it here; if not, nothing of that term can agree.
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
        // It may have crashed and lost what it had not yet got onto its disk.
        self.received = self.received.min(self.next.previous());
        self.state = ProgressState::Probe { pause: NOW };
    }

    /// What it says about its log with a heartbeat: shows what was lost although nothing came after it.
    pub(super) fn beat(&mut self, received: LogIndex, now: Instant, patience: Instant) {
        self.received(received, now);
        let lost = received.next() < self.next && self.moved <= patience;
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
