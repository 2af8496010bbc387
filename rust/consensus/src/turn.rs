//! The context in which a role handles an event.

use quorate_core::contract::Rng;
use quorate_core::time::Now;
use quorate_protocol::role::Effect;

/// The time, a random source, and the effects.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) rng: &'a mut Rng,
    pub(crate) effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
