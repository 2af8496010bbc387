//! The start times of the operations of an open loop. Pure: times are relative to the start of the run.
//!
//! A *closed* loop starts an operation when the last one has ended, so a server that stalls gets less load: one
//! operation sees the stall, and those that would have started meanwhile are never made. Gil Tene calls this
//! coordinated omission. An *open* loop starts operations on a schedule that is independent of responses, and measures
//! the latency of each from its scheduled start, as his wrk2 does (<https://github.com/giltene/wrk2>, with
//! HdrHistogram). What the two kinds measure, and how far they are apart, is in Schroeder, Wierman, Harchol-Balter:
//! *Open Versus Closed: A Cautionary Tale* (NSDI 2006).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Xorshift;

/// The spacing of the starts of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// All intervals are the same.
    #[default]
    Even,
    /// Intervals are exponentially distributed, as those of many independent users are: a Poisson process.
    Poisson,
}

/// The start times of operations, without end.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    count: u64,
    next: Duration,
    random: Xorshift,
}

impl Schedule {
    /// A schedule of this many operations per second.
    pub(super) fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        let mut schedule = Schedule {
            arrivals,
            rate,
            count: 0,
            next: Duration::ZERO,
            random: Xorshift::seeded(seed),
        };
        if arrivals == Arrivals::Poisson {
            schedule.advance();
        }
        schedule
    }

    /// The start time of the next operation.
    pub(super) fn peek(&self) -> Duration {
        self.next
    }

    /// Advances to the following operation.
    pub(super) fn advance(&mut self) {
        match self.arrivals {
            Arrivals::Even => {
                self.count += 1;
                // Counted from the beginning, so that no rounding adds up.
                self.next = Duration::from_secs_f64(self.count as f64 / self.rate);
            }
            Arrivals::Poisson => {
                let gap = -(1.0 - self.random.fraction()).ln() / self.rate;
                self.next += Duration::from_secs_f64(gap);
            }
        }
    }

    /// The number of starts until a time, inclusive; advances to the first one after it.
    pub(super) fn take_due(&mut self, now: Duration) -> usize {
        let mut due = 0;
        while self.next <= now {
            self.advance();
            due += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(schedule: &mut Schedule, count: usize) -> Vec<Duration> {
        let next = |_| {
            let moment = schedule.peek();
            schedule.advance();
            moment
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn even_starts_are_one_interval_apart_and_do_not_drift() {
        let mut schedule = Schedule::new(8.0, Arrivals::Even, 0);
        let millis: Vec<u128> = moments(&mut schedule, 5)
            .iter()
            .map(Duration::as_millis)
            .collect();
        assert_eq!(millis, [0, 125, 250, 375, 500]);
        // An interval of 333,333.3 ns: rounded each time, a million of them would be a third of a millisecond off.
        let mut schedule = Schedule::new(3_000.0, Arrivals::Even, 0);
        let last = moments(&mut schedule, 3_000_001).pop().unwrap();
        assert_eq!(last, Duration::from_secs(1_000));
    }

    #[test]
    fn poisson_starts_have_the_rate_and_the_spread_of_a_poisson_process() {
        let mut schedule = Schedule::new(1_000.0, Arrivals::Poisson, 3);
        let moments = moments(&mut schedule, 20_001);
        assert!(moments.is_sorted() && moments[0] > Duration::ZERO);
        let gaps: Vec<f64> = moments
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential distribution the standard deviation is the mean.
        assert!((mean - 1e-3).abs() < 3e-5, "{mean}");
        assert!((square.sqrt() / mean - 1.0).abs() < 0.05, "{}", square.sqrt());
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        let of_seed = |seed| moments(&mut Schedule::new(50.0, Arrivals::Poisson, seed), 100);
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn what_is_due_is_counted_once() {
        let mut schedule = Schedule::new(100.0, Arrivals::Even, 0);
        assert_eq!(schedule.take_due(Duration::ZERO), 1);
        assert_eq!(schedule.take_due(Duration::from_millis(9)), 0);
        assert_eq!(schedule.take_due(Duration::from_millis(35)), 3);
        assert_eq!(schedule.peek(), Duration::from_millis(40));
    }
}
