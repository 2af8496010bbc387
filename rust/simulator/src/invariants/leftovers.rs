//! A dropped keyspace leaves nothing on any disk: no rows, log entries, snapshots or votes.
//!
//! Garbage collection completes eventually, despite crashes.

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// See the module documentation.
pub(super) struct Leftovers;

impl Invariant<World> for Leftovers {
    fn name(&self) -> &'static str {
        "no leftovers"
    }

    fn observe(&mut self, _world: &World, _observation: Observation<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        for node in world.nodes() {
            let control = world
                .control(node)
                .ok_or_else(|| format!("{node} has no control role"))?;
            let known = control.known().keyspaces();
            for keyspace in world.ever_served() {
                if known.values().any(|known| known.id == keyspace.id) {
                    continue;
                }
                let left = world.leftovers(node, keyspace);
                if !left.is_empty() {
                    return Err(format!("{keyspace:?} was dropped, but {node} still has {left:?}"));
                }
            }
        }
        Ok(())
    }
}
