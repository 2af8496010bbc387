//! Durable before acknowledged.
//!
//! When a write is acknowledged to a client, at least as many replicas as its level requires have it on their disks,
//! including those that the response names. A power failure of the whole cluster in the next instant does not lose it. (Gray and Lamport put it as the rule of every commit protocol,
//! "Consensus on transaction commit", 2006; DeCandia et al., "Dynamo", 2007, section 4.5 give it up for speed, Quorate does
//! not.)

use quorate_core::ids::NodeId;
use quorate_protocol::api::Response;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks the disks whenever a success is sent to a client.
pub(super) struct DurableAcks;

impl Invariant<World> for DurableAcks {
    fn name(&self) -> &'static str {
        "durable before acknowledged"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Completed { operation } = observation else {
            return Ok(());
        };
        let operation = &world.history().operations()[operation];
        let Some((_, Ok(Response::Written(written)))) = &operation.completed else {
            return Ok(());
        };
        let Some(birth) = world.write_model().birth(operation.keyspace, written.dot) else {
            return Err(format!("{operation:?} was acknowledged without a dot"));
        };
        let required = usize::from(world.required(operation.keyspace, operation.level));
        if written.acked.len() < required {
            return Err(format!(
                "{required} copies are required, but {:?} have acknowledged: {operation:?}",
                written.acked
            ));
        }
        // A record that was corrupted since had been durable; it may be lost if it was the only copy.
        let corrupt = |node: NodeId| world.is_corrupt(node, operation.keyspace, &birth.key);
        for &node in written
            .acked
            .iter()
            .filter(|node| !birth.forfeited && !corrupt(**node))
        {
            let state = world.durable(node, operation.keyspace, &birth.key);
            if !state.clock().contains(written.dot) {
                return Err(format!(
                    "the response names {node} for {:?} of {}, but its disk has {:?}",
                    written.dot,
                    birth.key,
                    state.clock()
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
