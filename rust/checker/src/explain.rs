//! Minimizes a violation: finds a small part of a history that has no explanation.
//!
//! Every part that is tried *would* have an explanation if the whole had one, so the last one without is
//! proof by itself:
//! * the history up to some moment, in which operations that had not returned by then may have taken effect
//!   or not;
//! * the history from some moment on, with any initial value and version, in which writes that had not
//!   returned before may have taken effect or not;
//! * the history without some of its reads and refused writes;
//! * the history without writes that none of the other operations can have seen.

use std::ops::Range;

use crate::budget::Meter;
use crate::register::{Effect, Register, Step, observes};
use crate::search::{Answer, Search};

/// The number of operations that are easy to follow.
const EASY: usize = 5;

/// A part of the operations without an explanation.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    steps: Vec<Step<'a>>,
    /// Valid for any history before this.
    since: Option<u64>,
}

impl<'a> Part<'a> {
    /// As small a part of these operations as the meter permits to find, if they have no explanation.
    pub(crate) fn smallest(steps: &[Step<'a>], meter: &mut Meter) -> Self {
        let until = Part {
            steps: steps.to_vec(),
            since: None,
        }
        .prefix(meter);
        let late = until.suffix(meter).map(|part| part.shrunk(meter));
        let whole = until.shrunk(meter);
        // The one that starts at the beginning is easier to follow, if it is short.
        match late {
            Some(late) if late.steps.len() < whole.steps.len() && whole.steps.len() > EASY => late,
            _ => whole,
        }
    }

    /// The positions of its operations in the history.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let mut positions: Vec<usize> = self.steps.iter().map(|step| step.position).collect();
        positions.sort_unstable();
        positions
    }

    /// If given, it has no explanation whatever happened before this time.
    pub(crate) fn since(&self) -> Option<u64> {
        self.since
    }

    fn fails(&self, meter: &mut Meter) -> bool {
        let from = self.since.map_or(Register::NEW, |_| Register::ANY);
        Search::new(&self.steps).run(from, meter) == Answer::Unexplained
    }

    /// Up to the first return without an explanation, found by bisection: later operations cannot change
    /// that.
    fn prefix(self, meter: &mut Meter) -> Self {
        let mut returns: Vec<u64> = self.steps.iter().filter_map(|step| step.returned).collect();
        returns.sort_unstable();
        let (mut good, mut bad) = (0, returns.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match self.until(returns[middle - 1]).fails(meter) {
                true => bad = middle,
                false => good = middle,
            }
        }
        self.until(returns[bad - 1])
    }

    fn until(&self, end: u64) -> Self {
        let cut = |step: &Step<'a>| match step.returned {
            _ if step.invoked > end => None,
            Some(returned) if returned > end => step.if_it_writes(),
            _ => Some(*step),
        };
        Part {
            steps: self.steps.iter().filter_map(cut).collect(),
            since: self.since,
        }
    }

    /// From the latest invocation on that has no explanation whatever was before; `None` if earlier
    /// operations matter.
    fn suffix(&self, meter: &mut Meter) -> Option<Self> {
        let mut invocations: Vec<u64> = self.steps.iter().map(|step| step.invoked).collect();
        invocations.sort_unstable();
        let (mut bad, mut good) = (0, invocations.len());
        if !self.from(invocations[bad]).fails(meter) {
            return None;
        }
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match self.from(invocations[middle]).fails(meter) {
                true => bad = middle,
                false => good = middle,
            }
        }
        Some(self.from(invocations[bad]))
    }

    fn from(&self, start: u64) -> Self {
        let cut = |step: &Step<'a>| match step.returned {
            Some(returned) if returned < start => None,
            Some(_) if step.invoked < start => step.if_it_writes(),
            _ => Some(*step),
        };
        Part {
            steps: self.steps.iter().filter_map(cut).collect(),
            since: Some(start),
        }
    }

    /// Removes everything that is not needed, half of it at first, then less at a time.
    fn shrunk(mut self, meter: &mut Meter) -> Self {
        let mut chunk = self.steps.len().div_ceil(2);
        while chunk > 0 {
            let mut smaller = false;
            let mut start = 0;
            while start < self.steps.len() {
                let kept = self.without(start..(start + chunk).min(self.steps.len()));
                if kept.steps.len() < self.steps.len() && kept.fails(meter) {
                    self = kept;
                    smaller = true;
                } else {
                    start += chunk;
                }
            }
            chunk = match chunk {
                // Operations that were needed before may be removable after others were removed.
                1 if smaller => 1,
                1 => 0,
                _ => chunk / 2,
            };
        }
        self
    }

    /// Without a range, except for writes that remaining operations may have seen.
    fn without(&self, range: Range<usize>) -> Self {
        let steps = &self.steps;
        let mut keep: Vec<bool> = (0..steps.len()).map(|index| !range.contains(&index)).collect();
        loop {
            let seen = |write: &Effect<'a>| {
                let mut kept = steps.iter().zip(&keep).filter(|(_, keep)| **keep);
                kept.any(|(step, _)| observes(&step.effect, write))
            };
            let seen = |index: &usize| !keep[*index] && seen(&steps[*index].effect);
            let back: Vec<usize> = range.clone().filter(seen).collect();
            if back.is_empty() {
                break;
            }
            // They may have seen others themselves.
            back.into_iter().for_each(|index| keep[index] = true);
        }
        let kept = steps.iter().zip(keep).filter(|(_, keep)| *keep);
        Part {
            steps: kept.map(|(step, _)| *step).collect(),
            since: self.since,
        }
    }
}
