//! The search for an order of the operations on one key that explains all their outcomes.
//!
//! Depth-first search with memoization: a [`Point`] is a set of executed operations and the register after
//! them, and no point is visited twice. Since operations overlap only so much, the set is small: everything
//! before `base`, and a few more. Four optimizations:
//! * An operation that can be executed and neither changes nor reveals anything (a read of the current value)
//!   is executed at once: in any order that explains the rest it can come first as well.
//! * An operation of unknown outcome is executed only if the next one observes it. If that is an
//!   unconditional write, omitting it is equivalent; it may come later, when an operation does observe it.
//! * Of equal operations of unknown outcome, the earliest comes first; those that can no longer be observed
//!   are dropped, executed or not.
//! * A version that one write is known to have made is never that of another.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::budget::Meter;
use crate::register::{Condition, Effect, Register, Step, observes};

/// The result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is an order.
    Explained,
    /// There is no order.
    Unexplained,
    /// The budget was exhausted first.
    OutOfBudget,
}

/// The progress of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Point<'a> {
    /// All operations before this one are executed, and it is not.
    base: u32,
    /// Also executed: these after it, in their order.
    ahead: Vec<u32>,
    /// Also executed: these of unknown outcome, in their order.
    unknown: Vec<u32>,
    register: Register<'a>,
    /// The last one was of unknown outcome, and has not been observed yet.
    unseen: bool,
}

/// An operation of unknown outcome.
struct Doubtful<'a> {
    step: Step<'a>,
    /// The previous equal one.
    twin: Option<u32>,
    /// When everything before this is executed, it can no longer be observed.
    pointless: u32,
}

/// The origin of a version.
enum Maker<'a> {
    /// A write whose client knows the version.
    Known,
    /// A write of this value.
    Of(&'a [u8]),
}

/// The operations on one key.
pub(crate) struct Search<'a> {
    /// Those with an outcome, by invocation.
    known: Vec<Step<'a>>,
    /// Those without, by invocation.
    unknown: Vec<Doubtful<'a>>,
    /// The known origins of versions.
    makers: BTreeMap<u64, Maker<'a>>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(steps: &[Step<'a>]) -> Self {
        let mut steps = steps.to_vec();
        steps.sort_by_key(|step| (step.invoked, step.position));
        let mut makers = BTreeMap::new();
        for step in &steps {
            if let Effect::Read {
                seen: Some((value, Some(version))),
            } = step.effect
            {
                makers.insert(version, Maker::Of(value));
            }
        }
        for step in &steps {
            if let Effect::Write {
                version: Some(version),
                ..
            } = step.effect
            {
                makers.insert(version, Maker::Known);
            }
        }
        let sees = |step: &Step<'a>, write: &Step<'a>| {
            let fits = match (
                write.effect,
                step.effect.reveals().and_then(|version| makers.get(&version)),
            ) {
                (Effect::Write { version: None, .. }, Some(Maker::Known)) => false,
                (
                    Effect::Write {
                        version: None, value, ..
                    },
                    Some(Maker::Of(made)),
                ) => value == Some(*made),
                _ => true,
            };
            fits && observes(&step.effect, &write.effect)
        };
        let (known, doubtful): (Vec<Step<'a>>, Vec<Step<'a>>) =
            steps.into_iter().partition(|step| step.returned.is_some());
        let behind = |last: usize| last as u32 + 1;
        let last_seen = |step| {
            known
                .iter()
                .rposition(|other| sees(other, step))
                .map_or(0, behind)
        };
        let mut pointless: Vec<u32> = doubtful.iter().map(last_seen).collect();
        // An operation of unknown outcome that observes another matters only if it is itself observed.
        let mut stable = false;
        while !stable {
            stable = true;
            for (one, other) in
                (0..doubtful.len()).flat_map(|one| (0..doubtful.len()).map(move |other| (one, other)))
            {
                if pointless[other] > pointless[one] && sees(&doubtful[other], &doubtful[one]) {
                    pointless[one] = pointless[other];
                    stable = false;
                }
            }
        }
        let mut latest: HashMap<Effect<'a>, u32> = HashMap::new();
        let mut unknown = Vec::new();
        for (step, pointless) in doubtful
            .into_iter()
            .zip(pointless)
            .filter(|(_, pointless)| *pointless > 0)
        {
            let twin = latest.insert(step.effect, unknown.len() as u32);
            unknown.push(Doubtful {
                step,
                twin,
                pointless,
            });
        }
        Search {
            known,
            unknown,
            makers,
        }
    }

    /// Searches for an order that starts with this register.
    pub(crate) fn run(&self, from: Register<'a>, meter: &mut Meter) -> Answer {
        let mut visited: HashSet<Point<'a>> = HashSet::new();
        let mut stack = vec![Point {
            base: 0,
            ahead: Vec::new(),
            unknown: Vec::new(),
            register: from,
            unseen: false,
        }];
        while let Some(mut point) = stack.pop() {
            if !meter.step() {
                return Answer::OutOfBudget;
            }
            self.absorb(&mut point);
            self.forget(&mut point);
            if point.base as usize == self.known.len() {
                return Answer::Explained;
            }
            if visited.insert(point.clone()) {
                self.expand(&point, &mut stack);
            }
        }
        Answer::Unexplained
    }

    /// Executes all operations that can be executed and change nothing.
    fn absorb(&self, point: &mut Point<'a>) {
        loop {
            let free = |index: &u32| {
                let effect = &self.known[*index as usize].effect;
                point.register.execute(effect) == Some(point.register)
            };
            let (candidates, _) = self.candidates(point);
            let free: Vec<u32> = candidates.into_iter().filter(free).collect();
            if free.is_empty() {
                return;
            }
            point.unseen = false;
            for index in free {
                point.execute(index);
            }
        }
    }

    /// Whether an operation of unknown outcome can no longer be executed, or need not be.
    fn is_over(&self, doubtful: &Doubtful<'a>, point: &Point<'a>) -> bool {
        let outdated = match doubtful.step.effect.reveals() {
            Some(version) => point.register.is_beyond(version),
            None => false,
        };
        outdated || point.base >= doubtful.pointless
    }

    /// Drops operations whose execution no longer makes a difference.
    fn forget(&self, point: &mut Point<'a>) {
        let mut unknown = std::mem::take(&mut point.unknown);
        unknown.retain(|index| !self.is_over(&self.unknown[*index as usize], point));
        point.unknown = unknown;
    }

    /// The operations with an outcome whose predecessors are all executed, and the time before which others
    /// must have been invoked to qualify.
    fn candidates(&self, point: &Point<'a>) -> (Vec<u32>, u64) {
        let mut first_return = u64::MAX;
        let mut found = Vec::new();
        let mut ahead = point.ahead.iter().peekable();
        for index in point.base..self.known.len() as u32 {
            if ahead.next_if(|executed| **executed == index).is_some() {
                continue;
            }
            let step = &self.known[index as usize];
            if step.invoked > first_return {
                break;
            }
            first_return = first_return.min(step.returned.unwrap_or(u64::MAX));
            found.push(index);
        }
        (found, first_return)
    }

    /// Pushes the points after this one onto the stack, the most promising last.
    fn expand(&self, point: &Point<'a>, stack: &mut Vec<Point<'a>>) {
        let (mut candidates, first_return) = self.candidates(point);
        for (index, doubtful) in self.unknown.iter().enumerate().rev() {
            let index = index as u32;
            let used = |index: &u32| point.unknown.binary_search(index).is_ok();
            let in_turn = doubtful.twin.as_ref().is_none_or(used) && !used(&index);
            if doubtful.step.invoked > first_return || !in_turn || self.is_over(doubtful, point) {
                continue;
            }
            if let Some(mut next) = self.after(point, &doubtful.step, true) {
                let place = next.unknown.partition_point(|other| *other < index);
                next.unknown.insert(place, index);
                stack.push(next);
            }
        }
        // The next in the order of the versions first; without versions, the one that returned first.
        candidates.sort_by_key(|index| {
            let step = &self.known[*index as usize];
            let version = match step.effect {
                Effect::Write { version, .. } => version,
                _ => None,
            };
            std::cmp::Reverse((version, step.returned))
        });
        for index in candidates {
            if let Some(mut next) = self.after(point, &self.known[index as usize], false) {
                next.execute(index);
                stack.push(next);
            }
        }
    }

    /// The point after an operation, which is not marked as executed yet; `None` if it cannot come next.
    fn after(&self, point: &Point<'a>, step: &Step<'a>, unknown: bool) -> Option<Point<'a>> {
        let blind = matches!(
            step.effect,
            Effect::Write {
                condition: Condition::Any,
                ..
            }
        );
        if point.unseen && blind {
            return None;
        }
        let another = |version| matches!(self.makers.get(&version), Some(Maker::Known));
        if point.register.is_vague() && step.effect.reveals().is_some_and(another) {
            return None;
        }
        let register = point.register.execute(&step.effect)?;
        Some(Point {
            register,
            unseen: unknown,
            ..point.clone()
        })
    }
}

impl Point<'_> {
    /// Marks an operation with an outcome as executed.
    fn execute(&mut self, index: u32) {
        if index != self.base {
            let place = self.ahead.partition_point(|other| *other < index);
            self.ahead.insert(place, index);
            return;
        }
        self.base += 1;
        let run = (self.base..)
            .zip(&self.ahead)
            .take_while(|(next, index)| next == *index);
        let run = run.count();
        self.ahead.drain(..run);
        self.base += run as u32;
    }
}
