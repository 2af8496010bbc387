//! Durable before acknowledged.
//!
//! When a client is told that a write succeeded, at least as many replicas as its level asks for have it on their
//! disks, and those that the answer names are among them. Not in a queue, not in a buffer: a power cut of the whole
//! cluster in the next instant takes nothing back. (Gray and Lamport put it as the rule of every commit protocol,
//! "Consensus on transaction commit", 2006; DeCandia et al., "Dynamo", 2007, section 4.5 give it up for speed, Quorate does
//! not.)

use quorate_core::ids::NodeId;
use quorate_protocol::api::Response;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Looks at the disks whenever a success is on its way to a client.
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
            return Err(format!(
                "{operation:?} was acknowledged although it never became an event"
            ));
        };
        let required = usize::from(world.required(operation.keyspace, operation.level));
        if written.acked.len() < required {
            return Err(format!(
                "{required} copies were asked for, {:?} have acknowledged: {operation:?}",
                written.acked
            ));
        }
        // What has rotted since was there; what was only there may be gone.
        let rotten = |node: NodeId| world.is_rotten(node, operation.keyspace, &birth.key);
        for &node in written
            .acked
            .iter()
            .filter(|node| !birth.forfeited && !rotten(**node))
        {
            let state = world.durable(node, operation.keyspace, &birth.key);
            if !state.clock().contains(written.dot) {
                return Err(format!(
                    "{node} is named as having {:?} of {} durably, but its disk has {:?}",
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
