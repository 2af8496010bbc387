//! The budget of a check.

use std::time::{Duration, Instant};

/// The budget of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The maximum number of search steps, over all keys: an operation of an ordinary history takes about
    /// one. As many again may be spent on minimizing a violation.
    pub steps: u64,
    /// The maximum time, likewise twice. `None` leaves the verdict to the steps, and so deterministic.
    pub time: Option<Duration>,
}

impl Default for Budget {
    /// Two million steps: some seconds, and some hundred megabytes of memory for a history that exhausts
    /// them.
    fn default() -> Self {
        Budget {
            steps: 2_000_000,
            time: None,
        }
    }
}

/// The remainder of a budget.
pub(crate) struct Meter {
    steps: u64,
    until: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(budget: &Budget) -> Self {
        Meter {
            steps: budget.steps,
            until: budget.time.and_then(|time| Instant::now().checked_add(time)),
        }
    }

    /// Takes a step, if one is left. Checks the clock periodically.
    pub(crate) fn step(&mut self) -> bool {
        if self.steps.is_multiple_of(1024) && self.until.is_some_and(|until| Instant::now() >= until) {
            self.steps = 0;
        }
        let left = self.steps > 0;
        self.steps = self.steps.saturating_sub(1);
        left
    }
}
