//! After the storm, everything works and everyone agrees.
//!
//! With the faults healed, every operation that was ever begun has been answered, and once every key has been read at
//! ALL (which repairs whoever is stale), all replicas of a key hold the same state: strong eventual consistency
//! (Shapiro et al., 2011). What is not promised under faults is demanded after them.

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Looks at the end of the run only.
pub(super) struct Liveness;

impl Invariant<World> for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn observe(&mut self, _world: &World, _observation: Observation<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        if let Some(operation) = world
            .history()
            .operations()
            .iter()
            .find(|operation| operation.completed.is_none())
        {
            return Err(format!("never answered: {operation:?}"));
        }
        for operation in world.closing_operations() {
            if let Some((_, Err(error))) = &operation.completed {
                return Err(format!("all is well, and yet {operation:?} failed: {error}"));
            }
        }
        for (keyspace, key) in world.write_model().keys() {
            let owners = world.owners(*keyspace, key);
            let first = world.durable(owners[0], *keyspace, key);
            for &node in &owners[1..] {
                let state = world.durable(node, *keyspace, key);
                if state != first {
                    return Err(format!(
                        "{} and {node} disagree about {key}: {first:?} and {state:?}",
                        owners[0]
                    ));
                }
            }
        }
        Ok(())
    }
}
