//! The node's clocks: the only place of this crate that reads time for a role.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant as Monotonic, SystemTime, UNIX_EPOCH};

use quorate_core::time::{Instant, Now, WallTime};

/// A monotonic clock whose origin is the start of the process, and a wall clock that a test may skew.
///
/// One clock serves the whole node: instants of two clocks cannot be compared.
#[derive(Debug)]
pub struct Clock {
    origin: Monotonic,
    skew_micros: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::start()
    }
}

impl Clock {
    /// Starts a clock whose [`Instant`] 0 is now.
    pub fn start() -> Self {
        Clock {
            origin: Monotonic::now(),
            skew_micros: AtomicI64::new(0),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now {
            instant: self.instant(),
            wall: self.wall(),
        }
    }

    /// Microseconds since the clock was started.
    pub fn instant(&self) -> Instant {
        Instant(micros(self.origin.elapsed()))
    }

    /// Microseconds since the Unix epoch, with the skew.
    pub fn wall(&self) -> WallTime {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        WallTime(real.saturating_add_signed(self.skew_micros.load(Ordering::Relaxed)))
    }

    /// Skews the wall clock by this much against the system's.
    pub fn set_wall_skew(&self, micros: i64) {
        self.skew_micros.store(micros, Ordering::Relaxed);
    }

    /// Converts an instant for the runtime's timers; at most a year ahead, so that [`Instant::NEVER`] is valid too.
    pub fn monotonic(&self, at: Instant) -> Monotonic {
        const YEAR: u64 = 365 * 24 * 3600 * 1_000_000;
        let limit = self.instant().0.saturating_add(YEAR);
        self.origin + Duration::from_micros(at.0.min(limit))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_changes_the_wall_clock_only() {
        let clock = Clock::start();
        let before = clock.now();
        clock.set_wall_skew(30_000_000);
        let after = clock.now();
        assert!(after.wall.0 - before.wall.0 >= 30_000_000);
        assert!(after.instant >= before.instant);
        assert!(after.instant.since(before.instant) < Duration::from_secs(30));
        clock.set_wall_skew(i64::MIN);
        assert_eq!(clock.wall(), WallTime(0));
    }

    #[test]
    fn instants_convert_to_runtime_instants() {
        let clock = Clock::start();
        let at = clock.instant() + Duration::from_secs(5);
        let ahead = clock.monotonic(at).duration_since(Monotonic::now());
        assert!(
            ahead > Duration::from_secs(4) && ahead <= Duration::from_secs(5),
            "{ahead:?}"
        );
        assert!(clock.monotonic(Instant::NEVER) > Monotonic::now());
    }
}
