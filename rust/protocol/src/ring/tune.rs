//! Balancing a ring by shifting its tokens a little.
//!
//! As long as no token passes another, preference lists stay what they are, and the shares of all nodes are linear in
//! the positions of the tokens: shifting the end of an arc by `d` gives `d` more of the circle to the nodes of that
//! arc's list and takes as much from those of the next. So balance is a least-squares problem with far more unknowns
//! (tokens) than equations (two per node: its primary share and its share of the stored copies). It is solved one
//! token at a time, each taking the step that serves best by itself. All in integers: every node computes the same.

use super::preference::{Sites, Slot, preference_lists};
use super::token::SPACE;

/// How many copies are balanced besides the primaries: Quorate's default, fewer when there are fewer nodes.
const COPIES: usize = 3;

/// A node's primary share counts this many times as much as its share of the stored copies.
const PRIMARY_WEIGHT: i128 = 16;

/// The shares of a ring's nodes, kept up to date while its tokens shift.
pub(super) struct Tuning {
    /// Ends of the arcs, rising.
    ends: Vec<u64>,
    owners: Vec<Slot>,
    lists: Vec<Slot>,
    /// How long the lists are.
    copies: usize,
    /// Per member, how many tokens of the circle it owns.
    primary: Vec<i128>,
    /// Per member, how many tokens of the circle it stores a copy of.
    stored: Vec<i128>,
}

/// A step of one token: how far, and by how much it lowers the weighted sum of squares (in an own unit).
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) arc: usize,
    pub(super) by: i128,
    pub(super) gain: i128,
}

impl Tuning {
    pub(super) fn new(ends: Vec<u64>, owners: Vec<Slot>, sites: &Sites, members: usize) -> Self {
        let copies = COPIES.min(members);
        let lists = preference_lists(&owners, sites, copies);
        let mut tuning = Tuning {
            ends,
            owners,
            lists,
            copies,
            primary: vec![0; members],
            stored: vec![0; members],
        };
        for arc in 0..tuning.ends.len() {
            let size = tuning.size(arc);
            tuning.grow(arc, size);
        }
        tuning
    }

    pub(super) fn into_ends(self) -> Vec<u64> {
        self.ends
    }

    pub(super) fn arcs(&self) -> usize {
        self.ends.len()
    }

    /// How many tokens of the circle lie in the arc.
    pub(super) fn size(&self, arc: usize) -> i128 {
        let start = self.ends[self.before(arc)];
        match self.ends[arc].wrapping_sub(start) {
            0 => SPACE as i128,
            size => i128::from(size),
        }
    }

    /// The best step for the end of `arc` that leaves at least `room` tokens in the arcs on both sides of it.
    pub(super) fn best_step(&self, arc: usize, room: i128) -> Option<Step> {
        let next = self.after(arc);
        let (grows, shrinks) = (self.list(arc), self.list(next));
        let (mut slope, mut curve) = (0, 0);
        if self.owners[arc] != self.owners[next] {
            slope += PRIMARY_WEIGHT * (self.primary_of(arc) - self.primary_of(next));
            curve += 2 * PRIMARY_WEIGHT;
        }
        for slot in grows.iter().filter(|slot| !shrinks.contains(slot)) {
            slope += self.stored[usize::from(*slot)];
            curve += 1;
        }
        for slot in shrinks.iter().filter(|slot| !grows.contains(slot)) {
            slope -= self.stored[usize::from(*slot)];
            curve += 1;
        }
        if curve == 0 {
            return None;
        }
        // The sum of squares changes by 2·slope·d + curve·d². A token never passes the top of the circle.
        let up = (self.size(next) - room).min(i128::from(u64::MAX - self.ends[arc]));
        let down = (self.size(arc) - room).min(i128::from(self.ends[arc]));
        let by = (-slope / curve).clamp(-down.max(0), up.max(0));
        // Scaled down by 2^32, so that the square of a share fits.
        let scale = 1 << 32;
        let gain = -(2 * (slope / scale) * (by / scale) + curve * (by / scale) * (by / scale));
        (by != 0).then_some(Step { arc, by, gain })
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

    /// Whether every node's primary share, and every node's share of the copies, is within `1/part` of its mean.
    pub(super) fn balanced_within(&self, part: i128) -> bool {
        let within = |shares: &[i128]| {
            let mean = shares.iter().sum::<i128>() / shares.len() as i128;
            shares.iter().all(|share| (share - mean).abs() * part <= mean)
        };
        within(&self.primary) && within(&self.stored)
    }

    fn grow(&mut self, arc: usize, by: i128) {
        self.primary[usize::from(self.owners[arc])] += by;
        for slot in &self.lists[arc * self.copies..(arc + 1) * self.copies] {
            self.stored[usize::from(*slot)] += by;
        }
    }

    fn primary_of(&self, arc: usize) -> i128 {
        self.primary[usize::from(self.owners[arc])]
    }

    fn list(&self, arc: usize) -> &[Slot] {
        &self.lists[arc * self.copies..(arc + 1) * self.copies]
    }

    fn before(&self, arc: usize) -> usize {
        if arc == 0 { self.ends.len() - 1 } else { arc - 1 }
    }

    fn after(&self, arc: usize) -> usize {
        if arc + 1 == self.ends.len() { 0 } else { arc + 1 }
    }
}
