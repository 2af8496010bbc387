//! After the faults are healed, all operations succeed and all replicas converge.
//!
//! After healing, every operation has completed, and once every key has been read at ALL (which repairs stale replicas), all
//! replicas of a key have the same state: strong eventual consistency (Shapiro et al., 2011).

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks only the end of the run.
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
            return Err(format!("never completed: {operation:?}"));
        }
        for operation in world.closing_operations() {
            if let Some((_, Err(error))) = &operation.completed {
                return Err(format!("{operation:?} failed without faults: {error}"));
            }
        }
        for (keyspace, key) in world.write_model().keys() {
            let owners = world.owners(*keyspace, key);
            let first = world.durable(owners[0], *keyspace, key);
            for &node in &owners[1..] {
                let state = world.durable(node, *keyspace, key);
                if state != first {
                    return Err(format!(
                        "{} and {node} have different states of {key}: {first:?} and {state:?}",
                        owners[0]
                    ));
                }
            }
        }
        Ok(())
    }
}
