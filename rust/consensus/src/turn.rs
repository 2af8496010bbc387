//! What every event of a shard's server is handled with.

use quorate_core::contract::Rng;
use quorate_core::time::Now;
use quorate_protocol::role::Effect;

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
