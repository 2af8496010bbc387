//! A keyspace whose creation was acknowledged exists on every node; one whose creation failed definitely does not.
//!
//! Creations with unknown outcome, and names that a client tried to drop, are only checked to have completed. A keyspace
//! whose drop was acknowledged does not exist, even if another one has its name.

use quorate_core::error::Error;
use quorate_protocol::api::Response;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// See the module documentation.
pub(super) struct Creations;

/// Whether any attempt to create a keyspace of this name may have succeeded.
fn may_exist(world: &World, name: &str) -> bool {
    let attempts = world
        .creations()
        .iter()
        .filter(|(settings, _)| settings.name == name);
    let failed =
        |answer: &Option<Result<Response, Error>>| matches!(answer, Some(Err(error)) if error.is_definite());
    attempts.into_iter().any(|(_, answer)| !failed(answer))
}

impl Invariant<World> for Creations {
    fn name(&self) -> &'static str {
        "creations"
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
            for (name, answer) in world.drops() {
                match answer {
                    Some(Ok(Response::Keyspace { keyspace, .. })) => {
                        if known.values().any(|known| known.id == keyspace.id) {
                            return Err(format!("{keyspace:?} was dropped, but {node} has it"));
                        }
                    }
                    Some(_) => {}
                    None => return Err(format!("the drop of {name:?} never completed")),
                }
            }
            for (settings, answer) in world.creations() {
                if answer.is_some() && world.drops().any(|(name, _)| name == settings.name) {
                    continue;
                }
                let here = known
                    .values()
                    .find(|keyspace| keyspace.settings.name == settings.name);
                match (answer, here) {
                    (Some(Ok(Response::Keyspace { keyspace, .. })), here)
                        if here != Some(keyspace) && !world.is_altered(&settings.name) =>
                    {
                        return Err(format!("{keyspace:?} was created, but {node} has {here:?}"));
                    }
                    (Some(Err(error)), Some(keyspace)) if !may_exist(world, &settings.name) => {
                        return Err(format!(
                            "{keyspace:?} exists on {node}, but its creation failed with {error:?}"
                        ));
                    }
                    (None, _) => {
                        return Err(format!("the creation of {:?} never completed", settings.name));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
