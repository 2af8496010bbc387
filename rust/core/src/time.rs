//! Time in roles: an argument, never a clock.
//!
//! Every call into a role carries a [`Now`]: a monotonic instant (for timers and deadlines) and a wall clock (for
//! timestamps that people and last-write-wins compare). The wall clock may be skewed; the monotonic one never runs
//! backwards within one boot and means nothing outside the process.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A monotonic instant in microseconds since an origin private to the process (or to the simulation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// Later than any instant a process lives to see: the deadline of work that has none.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// Time from `earlier` to `self`, zero when `earlier` is in fact later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(
            self.0
                .saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// Wall-clock time in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Both clocks, read once per input of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Now {
    /// For timers, timeouts and deadlines.
    pub instant: Instant,
    /// For timestamps; may be skewed.
    pub wall: WallTime,
}
