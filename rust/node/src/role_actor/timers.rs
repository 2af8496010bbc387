//! The timers of one role, multiplexed on one timer of the runtime.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::time::Instant;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::inbox::Mailbox;

/// The timers that a role has set.
#[derive(Default)]
pub(super) struct Timers {
    by_id: BTreeMap<u64, Instant>,
    by_time: BTreeSet<(Instant, u64)>,
    armed: Option<(Instant, JoinHandle<()>)>,
}

impl Timers {
    /// Sets the timer `id`, replacing an earlier one with this id.
    pub(super) fn set(&mut self, id: u64, at: Instant) {
        if let Some(before) = self.by_id.insert(id, at) {
            self.by_time.remove(&(before, id));
        }
        self.by_time.insert((at, id));
    }

    /// Takes a timer that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let (at, id) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_id.remove(&id);
        Some(id)
    }

    /// Schedules a wake of the actor for the earliest timer. An earlier scheduled wake stays: a spurious turn costs less
    /// than rescheduling on every change of a timer.
    pub(super) fn arm(&mut self, clock: &Clock, mailbox: &Mailbox) {
        let Some((at, _)) = self.by_time.first().copied() else {
            return;
        };
        if let Some((armed, task)) = &self.armed
            && *armed <= at
            && !task.is_finished()
        {
            return;
        }
        self.disarm();
        let (moment, mailbox) = (clock.monotonic(at), mailbox.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(moment.into()).await;
            mailbox.wake();
        });
        self.armed = Some((at, task));
    }

    fn disarm(&mut self) {
        if let Some((_, task)) = self.armed.take() {
            task.abort();
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_the_time_set_last() {
        let mut timers = Timers::default();
        timers.set(1, Instant(10));
        timers.set(2, Instant(20));
        timers.set(1, Instant(30));
        assert_eq!(timers.due(Instant(19)), None);
        assert_eq!(timers.due(Instant(40)), Some(2));
        assert_eq!(timers.due(Instant(40)), Some(1));
        assert_eq!(timers.due(Instant(40)), None);
    }
}
