//! When the faults have been healed for a while, every shard answers, and soon.
//!
//! Each is asked for a write, a linearizable read and a stale one, by clients that remember how things were before. None may
//! fail, and none may take longer than an election would. (Fischer, Lynch and Paterson, 1985, say that nobody can
//! promise this while things go wrong. Afterwards it is what a majority is for.)

use std::time::Duration;

use super::{Invariant, Observation};
use crate::world::World;

/// The longest that an answer may take: far more than a round trip, and time for one election.
const SOON: Duration = Duration::from_secs(1);

/// Looks at the operations of the closing phase.
pub(super) struct ShardLiveness;

impl Invariant for ShardLiveness {
    fn name(&self) -> &'static str {
        "liveness of shards"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Completed { operation } = observation else {
            return Ok(());
        };
        let operation = &world.history().operations()[operation];
        let of_closing = world.is_closing() && operation.asked().is_some();
        let Some((at, result)) = operation.completed.as_ref().filter(|_| of_closing) else {
            return Ok(());
        };
        if let Err(error) = result {
            return Err(format!("all is well, and yet {operation:?} failed: {error}"));
        }
        let took = at.since(operation.invoked);
        if took > SOON {
            return Err(format!("all is well, and yet it took {took:?}: {operation:?}"));
        }
        Ok(())
    }

    /// Every shard has been asked.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        let asked = |group| {
            let mut closing = world.closing_operations().iter();
            closing.any(|operation| operation.asked().is_some_and(|(of, _)| of == group))
        };
        match world.groups().find(|(_, group)| !asked(group.id)) {
            Some((_, group)) => Err(format!("nobody has asked {} for anything at the end", group.id)),
            None => Ok(()),
        }
    }
}
