//! What is durable only grows.
//!
//! Key states form a lattice, and a replica only ever moves up in it: what it makes durable includes what it had
//! made durable before. This is what lets replicas merge in any order, any number of times, and agree at last
//! (Shapiro, Preguiça, Baquero, Zawirski, "Conflict-free replicated data types", 2011: states that grow monotonically in a
//! join semilattice converge).

use quorate_versions::KeyState;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Compares each record with the one that it replaces.
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
                    "{node} replaced the state of {key} by one without it: {before:?} by {after:?}"
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
