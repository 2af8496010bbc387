//! Hybrid logical clocks: timestamps close to the wall clock that respect causality.
//!
//! Wall clocks of different machines disagree, and may jump back. A hybrid clock (Kulkarni, Demirbas, Madappa, Avva,
//! Leone: "Logical physical clocks", 2014) follows the wall clock while that moves ahead, and otherwise counts: each
//! timestamp is greater than all that the clock has issued or adopted before. A replica adopts the timestamps of the
//! states that it receives, so that a write that follows another is also later in time, which is what
//! last-write-wins needs to be fair.
//!
//! A clock that is far ahead would drag all others with it, for good. So a remote timestamp that is more than
//! `max_offset` ahead of the local wall clock is not adopted, and the caller is notified, to report an event.
//!
//! A clock is not stored. It starts over at each start, and after the wall clock was set back it may issue
//! lower timestamps than before. That is enough for last-write-wins: timestamps are only ever compared among
//! the siblings of one key, and what a write replaces is not a sibling of it. Before a replica assigns a
//! write its timestamp, it adopts those of its siblings of the key (see `quorum/replica/merge.rs`), so that a
//! write is also later than the siblings that it leaves in place. The remaining cases are concurrent writes on
//! two replicas whose wall clocks disagree; no stored mark would decide better between those.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// The default limit of how far a remote timestamp may be ahead of the local wall clock.
pub const MAX_CLOCK_OFFSET: Duration = Duration::from_millis(500);

/// A hybrid timestamp. Timestamps of one clock never repeat; those of different clocks may be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// The wall clock in microseconds, or ahead of it.
    pub wall: WallTime,
    /// Counts timestamps with the same `wall`.
    pub logical: u32,
}

impl fmt::Display for Timestamp {
    /// Microseconds since the Unix epoch, a dot and the count: `1700000000000000.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall.0, self.logical)
    }
}

impl Timestamp {
    fn successor(self) -> Timestamp {
        match self.logical.checked_add(1) {
            Some(logical) => Timestamp { logical, ..self },
            None => Timestamp {
                wall: WallTime(self.wall.0.checked_add(1).expect("the clock is exhausted")),
                logical: 0,
            },
        }
    }
}

/// The result of observing a remote timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a clock that is too far ahead must be reported"]
pub enum Observed {
    /// This clock will issue later timestamps only.
    Adopted,
    /// The remote clock is `ahead` of the local wall clock, more than allowed. This clock is unchanged.
    TooFarAhead {
        /// The difference.
        ahead: Duration,
    },
}

/// A node's hybrid clock. A new one has issued nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HybridClock {
    /// The greatest timestamp issued or adopted.
    last: Timestamp,
}

impl HybridClock {
    /// A new timestamp, greater than all issued or adopted before; `now` is the local wall clock.
    pub fn tick(&mut self, now: WallTime) -> Timestamp {
        let physical = Timestamp {
            wall: now,
            logical: 0,
        };
        self.last = physical.max(self.last.successor());
        self.last
    }

    /// Observes a timestamp of another clock. One that is more than `max_offset` ahead of the local wall
    /// clock `now` is not adopted.
    pub fn observe(&mut self, remote: Timestamp, now: WallTime, max_offset: Duration) -> Observed {
        let ahead = Duration::from_micros(remote.wall.0.saturating_sub(now.0));
        if ahead > max_offset {
            return Observed::TooFarAhead { ahead };
        }
        self.last = self.last.max(remote);
        Observed::Adopted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(wall: u64, logical: u32) -> Timestamp {
        Timestamp {
            wall: WallTime(wall),
            logical,
        }
    }

    #[test]
    fn it_follows_the_wall_clock_and_counts_while_that_stops_or_goes_back() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.tick(WallTime(10)), at(10, 0));
        assert_eq!(clock.tick(WallTime(10)), at(10, 1));
        assert_eq!(clock.tick(WallTime(7)), at(10, 2));
        assert_eq!(clock.tick(WallTime(11)), at(11, 0));
    }

    #[test]
    fn a_remote_timestamp_within_the_offset_is_adopted() {
        let mut clock = HybridClock::default();
        let now = WallTime(1_000_000);
        assert_eq!(
            clock.observe(at(1_500_000, 3), now, MAX_CLOCK_OFFSET),
            Observed::Adopted
        );
        assert_eq!(clock.tick(now), at(1_500_000, 4));
        assert_eq!(
            clock.observe(at(900_000, 9), now, MAX_CLOCK_OFFSET),
            Observed::Adopted
        );
        assert_eq!(clock.tick(now), at(1_500_000, 5));
    }

    #[test]
    fn a_remote_timestamp_beyond_the_offset_is_reported_and_changes_nothing() {
        let mut clock = HybridClock::default();
        let now = WallTime(1_000_000);
        assert_eq!(
            clock.observe(at(1_500_001, 0), now, MAX_CLOCK_OFFSET),
            Observed::TooFarAhead {
                ahead: Duration::from_micros(500_001)
            }
        );
        assert_eq!(clock, HybridClock::default());
        assert_eq!(clock.tick(now), at(1_000_000, 0));
    }

    #[test]
    fn a_count_that_overflows_carries_into_the_wall_time() {
        let mut clock = HybridClock::default();
        assert_eq!(
            clock.observe(at(5, u32::MAX), WallTime(5), MAX_CLOCK_OFFSET),
            Observed::Adopted
        );
        assert_eq!(clock.tick(WallTime(5)), at(6, 0));
    }

    proptest! {
        /// Whatever the wall clock does, timestamps rise, also above each one adopted.
        #[test]
        fn timestamps_only_rise(steps in proptest::collection::vec((0..2_000_000u64, proptest::option::of((0..2_000_000u64, 0..3u32))), 1..50)) {
            let mut clock = HybridClock::default();
            let mut last = Timestamp::default();
            for (now, remote) in steps {
                let now = WallTime(now);
                if let Some((wall, logical)) = remote
                    && clock.observe(at(wall, logical), now, MAX_CLOCK_OFFSET) == Observed::Adopted
                {
                    last = last.max(at(wall, logical));
                }
                let issued = clock.tick(now);
                prop_assert!(issued > last);
                last = issued;
            }
        }
    }
}
