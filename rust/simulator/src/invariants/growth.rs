//! Durable states only grow.
//!
//! Key states form a lattice, and the durable state of a replica only moves up in it: every durable state includes the
//! earlier ones. So replicas can merge states in any order, any number of times, and converge
//! (Shapiro, Preguiça, Baquero, Zawirski, "Conflict-free replicated data types", 2011: states that grow monotonically in a
//! join semilattice converge).

use quorate_versions::KeyState;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Compares each durable record with the previous one.
pub(super) struct Growth;

impl Invariant<World> for Growth {
    fn name(&self) -> &'static str {
        "growth"
    }

    fn observe(&mut self, _world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Committed { node, changes } = observation else {
            return Ok(());
        };
        for change in changes {
            let (_, key, after) = change.decode()?;
            let before = match &change.before {
                Some(bytes) => KeyState::decode(bytes).map_err(|error| error.to_string())?,
                None => continue,
            };
            if !after.includes(&before) {
                return Err(format!(
                    "{node} replaced the state of {key} with one that does not include it: {before:?} with {after:?}"
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
