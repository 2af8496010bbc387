//! Balancing a ring by small shifts of its tokens.
//!
//! As long as no token passes another, preference lists do not change, and the shares of all nodes are linear
//! in the positions of the tokens: shifting the end of an arc by `d` gives `d` more of the circle to the
//! nodes of that arc's list and takes as much from those of the next. So balance is a least-squares problem
//! with far more unknowns (tokens) than equations (one per node and number of copies). It is solved one token
//! at a time, each by its own best step. All in integers: every node computes the same.
//! step that serves best by itself. All in integers: every node computes the same.

use super::preference::{Sites, Slot, preference_lists};
use super::token::SPACE;

/// The numbers of copies to balance: Quorate's default of three, and two, and one (the primaries).
const COPIES: usize = 3;

/// The weight of an uneven share of the first n copies, by n - 1.
const WEIGHTS: [i128; COPIES] = [16, 1, 1];

/// The maximum number of steps per token in [`Tuning::settle`].
const ROUNDS: usize = 24;

/// Shares are squared after dividing by this, so that the squares fit 128 bits.
const SCALE: i128 = 1 << 32;

/// The arcs of a ring and the shares of its nodes, kept up to date while the arcs' ends shift.
pub(super) struct Tuning {
    /// Ends of the arcs, ascending.
    ends: Vec<u64>,
    owners: Vec<Slot>,
    /// Preference lists of the arcs.
    lists: Vec<Slot>,
    /// The length of the lists.
    copies: usize,
    members: usize,
    /// Per n - 1 and member, the number of tokens of the circle that have the member among the first n of
    /// their list.
    shares: Vec<i128>,
}

/// A step of the end of one arc.
#[derive(Clone, Copy)]
pub(super) struct Step {
    arc: usize,
    /// The distance, clockwise if positive.
    by: i128,
    /// The reduction of the [`imbalance`](Tuning::imbalance).
    pub(super) gain: i128,
}

impl Tuning {
    /// For arcs with these ends and owners.
    pub(super) fn new(ends: Vec<u64>, owners: Vec<Slot>, sites: &Sites, members: usize) -> Self {
        let copies = COPIES.min(members);
        let mut tuning = Tuning {
            lists: preference_lists(&owners, sites, copies),
            ends,
            owners,
            copies,
            members,
            shares: vec![0; copies * members],
        };
        for arc in 0..tuning.ends.len() {
            let size = tuning.size(arc);
            tuning.grow(arc, size);
        }
        tuning
    }

    /// The arcs' ends and owners.
    pub(super) fn arcs(&self) -> impl Iterator<Item = (u64, Slot)> {
        self.ends.iter().copied().zip(self.owners.iter().copied())
    }

    /// The weighted sum of squares of the shares' deviations from their means.
    pub(super) fn imbalance(&self) -> i128 {
        let off = |n: usize, share: &i128| ((share - self.mean(n)) / SCALE).pow(2);
        let of = |n: usize| self.shares_of(n).iter().map(|share| off(n, share)).sum::<i128>();
        (1..=self.copies).map(|n| WEIGHTS[n - 1] * of(n)).sum()
    }

    /// Whether every node's share of the first `n` copies is within `1/part` of the mean. True with fewer
    /// than `n` nodes, since every node has everything.
    pub(super) fn within(&self, n: usize, part: i128) -> bool {
        let fair = |share: &i128| (share - self.mean(n)).abs() * part <= self.mean(n);
        n > self.copies || self.shares_of(n).iter().all(fair)
    }

    /// Shifts the tokens of one member, and no others, until that no longer helps. Each of them leaves
    /// `1/part` of the two arcs that it separates on both of its sides.
    pub(super) fn settle(&mut self, slot: Slot, part: i128) {
        let room = |arc: usize| (self.size(arc) + self.size(self.after(arc))) / part;
        let all = 0..self.ends.len();
        let own: Vec<(usize, i128)> = all
            .filter(|arc| self.owners[*arc] == slot)
            .map(|arc| (arc, room(arc)))
            .collect();
        for _ in 0..ROUNDS {
            let mut longest = 0;
            for (arc, room) in &own {
                if let Some(step) = self.best_step(*arc, *room) {
                    longest = longest.max(step.by.abs());
                    self.take(step);
                }
            }
            if longest < SPACE as i128 >> 24 {
                break;
            }
        }
    }

    /// The step, of any token, with the highest gain; it leaves at least `room` in the arcs on both sides.
    pub(super) fn best_of_all(&self, room: i128) -> Option<Step> {
        (0..self.ends.len())
            .filter_map(|arc| self.best_step(arc, room))
            .max_by_key(|step| step.gain)
    }

    /// Takes a step.
    pub(super) fn take(&mut self, step: Step) {
        let next = self.after(step.arc);
        self.grow(step.arc, step.by);
        self.grow(next, -step.by);
        let end = i128::from(self.ends[step.arc]) + step.by;
        assert!((0..SPACE as i128).contains(&end), "a token left the circle");
        self.ends[step.arc] = end as u64;
    }

    /// The best step for the end of `arc`.
    fn best_step(&self, arc: usize, room: i128) -> Option<Step> {
        let next = self.after(arc);
        let (mut slope, mut curve) = (0, 0);
        for n in 1..=self.copies {
            let (grows, shrinks) = (&self.list(arc)[..n], &self.list(next)[..n]);
            let (weight, shares) = (WEIGHTS[n - 1], self.shares_of(n));
            for slot in grows.iter().filter(|slot| !shrinks.contains(slot)) {
                slope += weight * shares[usize::from(*slot)];
                curve += weight;
            }
            for slot in shrinks.iter().filter(|slot| !grows.contains(slot)) {
                slope -= weight * shares[usize::from(*slot)];
                curve += weight;
            }
        }
        if curve == 0 {
            return None;
        }
        // The imbalance changes by 2·slope·d + curve·d². (The means cancel out: as many grow as shrink.)
        let up = (self.size(next) - room).min(i128::from(u64::MAX - self.ends[arc]));
        let down = (self.size(arc) - room).min(i128::from(self.ends[arc]));
        let by = (-slope / curve).clamp(-down.max(0), up.max(0));
        let scaled = by / SCALE;
        let gain = -(2 * (slope / SCALE) * scaled + curve * scaled * scaled);
        (by != 0).then_some(Step { arc, by, gain })
    }

    fn grow(&mut self, arc: usize, by: i128) {
        for n in 1..=self.copies {
            for slot in &self.lists[arc * self.copies..][..n] {
                self.shares[(n - 1) * self.members + usize::from(*slot)] += by;
            }
        }
    }

    /// The number of tokens of the circle in the arc.
    fn size(&self, arc: usize) -> i128 {
        let before = if arc == 0 { self.ends.len() - 1 } else { arc - 1 };
        match self.ends[arc].wrapping_sub(self.ends[before]) {
            0 => SPACE as i128,
            size => i128::from(size),
        }
    }

    fn after(&self, arc: usize) -> usize {
        if arc + 1 == self.ends.len() { 0 } else { arc + 1 }
    }

    fn list(&self, arc: usize) -> &[Slot] {
        &self.lists[arc * self.copies..][..self.copies]
    }

    fn shares_of(&self, n: usize) -> &[i128] {
        &self.shares[(n - 1) * self.members..][..self.members]
    }

    fn mean(&self, n: usize) -> i128 {
        n as i128 * SPACE as i128 / self.members as i128
    }
}
