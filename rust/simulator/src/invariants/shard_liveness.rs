//! When the faults have been healed for a while, every shard answers, and soon.
//!
//! Each is asked for a write, a linearizable read and a stale one, by clients that remember how things were before. None may
//! fail, and none may take longer than an election would. (Fischer, Lynch and Paterson, 1985, say that nobody can
//! promise this while things go wrong. Afterwards it is what a majority is for.)

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_raft::types::GroupId;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The longest that an answer may take: far more than a round trip, and time for one election.
const SOON: Duration = Duration::from_secs(1);

/// Looks at what shards are asked when they have to answer soon.
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
        let operations = world.history().operations().iter().enumerate();
        let probes = operations.filter(|(number, _)| world.is_probe(*number));
        let asked: BTreeSet<GroupId> = probes
            .filter_map(|(_, operation)| Some(operation.shard_request()?.0))
            .collect();
        match world.groups().find(|(_, group)| !asked.contains(&group.id)) {
            Some((_, group)) => Err(format!("nobody has asked {} for anything at the end", group.id)),
            None => Ok(()),
        }
    }
}
