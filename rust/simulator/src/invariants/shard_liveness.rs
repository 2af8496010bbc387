//! Some time after all faults are healed, every shard responds in time.
//!
//! Each gets a write, a linearizable read and a stale read, from clients with outdated routing information. None may fail, or
//! take longer than an election. (Fischer, Lynch and Paterson, 1985: this cannot be guaranteed under faults.)

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_raft::types::GroupId;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The deadline of a response: enough for one election.
const SOON: Duration = Duration::from_secs(1);

/// Checks the operations of the probing.
pub(super) struct ShardLiveness;

impl Invariant<World> for ShardLiveness {
    fn name(&self) -> &'static str {
        "liveness of shards"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Completed { operation } = observation else {
            return Ok(());
        };
        if !world.is_probe(operation) {
            return Ok(());
        }
        let operation = &world.history().operations()[operation];
        let (Some(_), Some((at, result))) = (operation.shard_request(), &operation.completed) else {
            return Ok(());
        };
        if let Err(error) = result {
            return Err(format!("{operation:?} failed without faults: {error}"));
        }
        let took = at.since(operation.invoked);
        if took > SOON {
            return Err(format!(
                "an operation without faults took {took:?}: {operation:?}"
            ));
        }
        Ok(())
    }

    /// Checks that every shard was probed.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        let operations = world.history().operations().iter().enumerate();
        let probes = operations.filter(|(number, _)| world.is_probe(*number));
        let asked: BTreeSet<GroupId> = probes
            .filter_map(|(_, operation)| Some(operation.shard_request()?.0))
            .collect();
        match world.groups().find(|(_, group)| !asked.contains(&group.id)) {
            Some((_, group)) => Err(format!("{} was not probed", group.id)),
            None => Ok(()),
        }
    }
}
