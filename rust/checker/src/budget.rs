//! What a verdict may cost.

use std::time::{Duration, Instant};

/// What may be spent on a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many steps the search may take, over all keys: an operation of an ordinary history takes about one. As many again
    /// may be spent on making a violation small.
    pub steps: u64,
    /// How long it may take, likewise twice. `None` leaves the verdict to the steps, and so the same each time.
    pub time: Option<Duration>,
}

impl Default for Budget {
    /// Two million steps: some seconds, and some hundred megabytes of memory for a history that uses them up.
    fn default() -> Self {
        Budget {
            steps: 2_000_000,
            time: None,
        }
    }
}

/// What is left of a budget.
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

    /// Takes a step, if one is left. Looks at the clock now and then.
    pub(crate) fn step(&mut self) -> bool {
        if self.steps.is_multiple_of(1024) && self.until.is_some_and(|until| Instant::now() >= until) {
            self.steps = 0;
        }
        let left = self.steps > 0;
        self.steps = self.steps.saturating_sub(1);
        left
    }
}
