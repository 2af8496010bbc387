//! The clocks of nodes: a monotonic clock for timers, and a wall clock.
//!
//! Both differ from the world's time. The monotonic clock of every process starts at a random instant near zero, so that
//! instants of different processes are not comparable. A monotonic clock may *drift*: it runs fast or slow, which timeouts
//! must tolerate. A wall clock may be *skewed*: it is ahead or behind, and jumps when it is set. Safety must not depend on
//! either.

use quorate_core::ids::{BootId, NodeId};
use quorate_core::time::{Instant, Now, WallTime};

use super::{EPOCH_MICROS, World};

/// A monotonic clock whose rate can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// When its rate was last set, in the world's time.
    since: Instant,
    /// Its reading at that time.
    reading: Instant,
    /// How much faster it runs, in percent; slower if negative.
    drift_percent: i8,
}

impl Clock {
    /// A clock that reads `reading` at `now`.
    pub(super) fn new(now: Instant, reading: Instant, drift_percent: i8) -> Self {
        Clock {
            since: now,
            reading,
            drift_percent,
        }
    }

    /// Its rate, in hundredths of a second per second.
    fn rate(self) -> u64 {
        100u64.saturating_add_signed(i64::from(self.drift_percent)).max(1)
    }

    /// Its reading.
    pub(super) fn read(self, now: Instant) -> Instant {
        Instant(self.reading.0 + (now.0 - self.since.0) * self.rate() / 100)
    }

    /// When it first reads `at`, if its rate does not change.
    pub(super) fn when(self, at: Instant) -> Instant {
        let left = at.0.saturating_sub(self.reading.0);
        Instant(
            self.since
                .0
                .saturating_add(left.saturating_mul(100).div_ceil(self.rate())),
        )
    }

    /// Changes its rate, without a jump.
    pub(super) fn set_drift(&mut self, now: Instant, drift_percent: i8) {
        *self = Clock::new(now, self.read(now), drift_percent);
    }
}

impl World {
    /// The clocks of a node's process.
    pub(super) fn clocks(&self, node: NodeId) -> Now {
        let machine = &self.machines[&node];
        let wall = (EPOCH_MICROS + self.now.0).saturating_add_signed(machine.skew_micros);
        let process = machine.process.as_ref();
        Now {
            instant: process.map_or(self.now, |process| process.clock.read(self.now)),
            wall: WallTime(wall),
        }
    }

    /// When the clock of a node's process reads `at`; `None` for never.
    pub(super) fn when(&self, node: NodeId, at: Instant) -> Option<Instant> {
        let clock = self.machines[&node].process.as_ref()?.clock;
        (at != Instant::NEVER).then(|| clock.when(at).max(self.now))
    }

    /// Whether the clock of a node's process has reached `at`. After a slow-down, a timer fires too early.
    pub(super) fn is_due(&self, node: NodeId, at: Instant) -> bool {
        self.clocks(node).instant >= at
    }

    /// Changes the rate of a node's monotonic clock.
    pub(super) fn drift(&mut self, node: NodeId, percent: i8) {
        let machine = self.machines.get_mut(&node).expect("the node exists");
        machine.drift_percent = percent;
        if let Some(process) = &mut machine.process {
            process.clock.set_drift(self.now, percent);
        }
    }

    pub(super) fn is_running(&self, node: NodeId, boot: BootId) -> bool {
        self.machines[&node]
            .process
            .as_ref()
            .is_some_and(|process| process.boot == boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_reaches_an_instant_exactly_when_predicted() {
        for percent in [-20, -7, 0, 5, 20] {
            let mut clock = Clock::new(Instant(1_000), Instant(77), percent);
            clock.set_drift(Instant(5_001), percent);
            for at in 4_000..9_000 {
                let when = clock.when(Instant(at));
                assert!(clock.read(when) >= Instant(at), "{percent} % at {at}");
                let before = Instant(when.0 - 1);
                assert!(
                    before < clock.since || clock.read(before) < Instant(at),
                    "{percent} % at {at}"
                );
            }
        }
    }

    #[test]
    fn a_change_of_rate_does_not_jump() {
        let mut clock = Clock::new(Instant(0), Instant(500), 0);
        assert_eq!(clock.read(Instant(1_000)), Instant(1_500));
        clock.set_drift(Instant(1_000), 10);
        assert_eq!(clock.read(Instant(1_000)), Instant(1_500));
        assert_eq!(clock.read(Instant(2_000)), Instant(2_600));
        clock.set_drift(Instant(2_000), -10);
        assert_eq!(clock.read(Instant(3_000)), Instant(3_500));
    }
}
