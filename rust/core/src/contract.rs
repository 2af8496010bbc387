//! The role contract: what a protocol is in Quorate, and how it is driven.
//!
//! A **role** is a pure state machine. It takes an event, the time and a seeded random source; it changes its
//! own state and returns effects. It never reads a clock, does no I/O, spawns nothing. A **shell** drives it:
//!
//! * in a node, one ractor actor per role instance (mailbox in, effects out);
//! * in the simulator, one thread with virtual time, and a network and disks with faults on a seeded
//!   schedule.
//!
//! # The driving contract
//! 1. The shell calls [`Role::handle`] with one event at a time, `now` never running backwards.
//! 2. It performs the returned effects in their order. Completion may take any time, and other events may
//!    arrive in between: an effect with a result names a `token`, and the result is an event that carries it.
//! 3. The same sequence of `(now, event)` with the same seed gives the same effects. A recording of a role's
//!    inputs ([`Input`]) therefore replays it exactly; a test checks this for every role.
//! 4. A role that violates an invariant panics. It is never restarted in place: the shell ends the whole
//!    node, which recovers from disk (a promise of the role may still be queued for the disk).
//!
//! Each kind of role has its own events and effects: the roles of a node share theirs
//! (`quorate_protocol::role`); a Raft group, the link between two nodes and the client have others, under the
//! same contract.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::time::Now;

/// The random source of a role instance: seeded by its shell, used only inside [`Role::handle`].
pub type Rng = ChaCha8Rng;

/// The random source for a role with this seed.
pub fn rng_from_seed(seed: u64) -> Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A pure state machine; see the module documentation.
pub trait Role: Clone {
    /// Its events.
    type Event;
    /// Its effects.
    type Effect;

    /// Handles one event and appends the resulting effects to `effects`.
    fn handle(&mut self, now: Now, rng: &mut Rng, event: Self::Event, effects: &mut Vec<Self::Effect>);
}

/// A recorded input of a role, for replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input<E> {
    /// The time.
    pub now: Now,
    /// The event.
    pub event: E,
}
