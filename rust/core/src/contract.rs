//! The role contract: what every protocol in Quorate is, and how it is driven.
//!
//! A **role** is a pure state machine. It is given an event, the time and a seeded random source; it changes its own
//! state and returns effects. It never reads a clock, never does I/O, never spawns. Whoever drives it is a **shell**:
//!
//! * in a node, one ractor actor per role instance (mailbox in, effects out);
//! * in the simulator, one thread with virtual time, a network and disks that misbehave on a seeded schedule.
//!
//! # The driving contract
//! 1. The shell calls [`Role::handle`] with one event at a time, `now` never running backwards.
//! 2. It performs the returned effects in their order. It may take as long as it likes, and other events may come in
//!    between: an effect that has an answer names a `token`, and the answer is an event that carries it.
//! 3. The same sequence of `(now, event)` with the same seed gives the same effects. A recording of a role's inputs
//!    ([`Input`]) therefore replays it exactly; a test holds every role to that.
//! 4. A role whose invariant breaks panics. It is never restarted in place: the shell ends the whole node, which
//!    recovers from disk (an old promise of the role may still be queued for the disk).
//!
//! Each kind of role has events and effects of its own: those of nodes share theirs (`quorate_protocol::role`); a Raft group,
//! the link between two nodes and the client have others, and the same contract.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::time::Now;

/// The random source of a role instance: seeded by its shell, drawn from only inside [`Role::handle`].
pub type Rng = ChaCha8Rng;

/// The random source for a role with this seed.
pub fn rng_from_seed(seed: u64) -> Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A pure state machine; the module says how it is driven.
pub trait Role: Clone {
    /// What can happen to it.
    type Event;
    /// What it can ask for.
    type Effect;

    /// Takes one event and appends the effects it has to `effects`.
    fn handle(&mut self, now: Now, rng: &mut Rng, event: Self::Event, effects: &mut Vec<Self::Effect>);
}

/// One recorded input of a role: what replays it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input<E> {
    /// The time it was given.
    pub now: Now,
    /// The event it was given.
    pub event: E,
}
