//! What every event of a shard's server is handled with.

use crate::role::{Effect, Rng};
use crate::time::Now;

/// The time, a random source, and where the effects go.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) rng: &'a mut Rng,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
