//! No write is lost.
//!
//! A write that W replicas acknowledged stays on W disks, as itself or in the causal past of a write that had seen it. It
//! need not be the same replicas; the one that assigned its dot may have lost it in a crash. Hence any R replicas with
//! R + W > N find it (Gifford, "Weighted voting for replicated data", 1979).
//! The causal past is meant strictly: a vector that covers the dot is not enough, since it also covers a value that was
//! dropped by mistake. There must be a write, present or itself replaced, that had *seen* it ([`crate::write_model`]). This
//! holds for unacknowledged writes as well: a crash may lose all copies of one, but as long as there is one, no write may
//! replace it that has not seen it.

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::api::Response;
use quorate_versions::KeyState;

use super::states_sent;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks every state that is sent or made durable for lost writes, and at the end every read quorum.
pub(super) struct Durability;

fn nothing_lost(
    world: &World,
    keyspace: KeyspaceId,
    key: &Key,
    state: &KeyState,
    place: &str,
) -> Result<(), String> {
    match world.write_model().lost(keyspace, key, state) {
        None => Ok(()),
        Some(dot) => Err(format!(
            "{place} of {key} has lost the write {dot:?} ({:?}), and no write in it had seen \
             it: {state:?}",
            world.write_model().birth(keyspace, dot)
        )),
    }
}

impl Invariant<World> for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Handled { effects, .. } => {
                for (key, keyspace, state) in states_sent(effects) {
                    // The key of a state that is sent without it is that of its writes.
                    let of = |dot| world.write_model().birth(keyspace, dot).map(|birth| &birth.key);
                    if let Some(key) =
                        key.or_else(|| state.siblings().iter().find_map(|sibling| of(sibling.dot)))
                    {
                        nothing_lost(world, keyspace, key, state, "a sent state")?;
                    }
                }
                Ok(())
            }
            Observation::Committed { node, changes } => changes.iter().try_for_each(|change| {
                let (keyspace, key, state) = change.decode()?;
                nothing_lost(
                    world,
                    keyspace,
                    &key,
                    &state,
                    &format!("the durable state on {node}"),
                )
            }),
            Observation::Completed { .. } => Ok(()),
        }
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        for operation in world.history().operations() {
            let Some((_, Ok(Response::Written(written)))) = &operation.completed else {
                continue;
            };
            let keyspace = operation.keyspace;
            let birth = world
                .write_model()
                .birth(keyspace, written.dot)
                .ok_or("an acknowledged write has no dot")?;
            if birth.forfeited {
                continue;
            }
            let owners = world.owners(keyspace, &birth.key);
            let has = |node: &&NodeId| {
                world
                    .durable(**node, keyspace, &birth.key)
                    .clock()
                    .contains(written.dot)
            };
            let copies = owners.iter().filter(has).count();
            let required = usize::from(world.required(keyspace, operation.level));
            if copies < required {
                return Err(format!(
                    "{:?} of {} was acknowledged at {}, by {required}, but {copies} of {owners:?} have it",
                    written.dot, birth.key, operation.level
                ));
            }
        }
        for (keyspace, key) in world.write_model().keys() {
            let merged = world
                .owners(*keyspace, key)
                .iter()
                .fold(KeyState::default(), |merged, node| {
                    merged.merge(&world.durable(*node, *keyspace, key))
                });
            nothing_lost(world, *keyspace, key, &merged, "the merged state of all replicas")?;
        }
        Ok(())
    }
}
