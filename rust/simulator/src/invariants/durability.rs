//! No write is lost.
//!
//! A write that W replicas acknowledged is on W disks for ever after, as itself or as part of the past of a write that
//! had seen it. Which replicas these are does not matter; the one that gave it its dot may have lost it in a crash.
//! Hence any R replicas with R + W > N find it (Gifford, "Weighted voting for replicated data", 1979).
//! "In its past" is meant strictly: the vector covering the dot is not enough, since a value that was dropped by
//! mistake is covered too. There must be a write, still there or itself rightly replaced, that had *seen* it
//! ([`crate::write_model`]). That goes for writes that were not acknowledged as well: a crash may take all copies of one, but
//! as long as there is one, nobody may claim to have replaced it who has not seen it.

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::api::Response;
use quorate_versions::KeyState;

use super::states_sent;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks every state that is sent or made durable for silent losses, and at the end every read quorum.
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
            "{place} of {key} has dropped the write {dot:?} ({:?}), and no write that it holds had seen \
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
                    // A state that comes without its key names it by the writes in it.
                    let of = |dot| world.write_model().birth(keyspace, dot).map(|birth| &birth.key);
                    if let Some(key) =
                        key.or_else(|| state.siblings().iter().find_map(|sibling| of(sibling.dot)))
                    {
                        nothing_lost(world, keyspace, key, state, "the state that is sent")?;
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
                .ok_or("an acknowledged write was never born")?;
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
