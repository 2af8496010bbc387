//! Queues are bounded.
//!
//! Whatever the network and the disks do, what waits in a node stays within the bounds that its parts promise: the
//! lanes of each link, the commit queue, the requests of clients. A queue without a bound is an outage that has not
//! happened yet.

use quorate_protocol::link::LinkSettings;

use crate::observation::{Invariant, Observation};
use crate::world::World;
use crate::world::listener::LIMITS;

/// Waiting for the disk: what the clients that a node admits can cause, with room to spare.
const MOST_FOR_DISK: usize = 64 << 20;

/// Looks at the queues of a node whenever one of its roles has done something.
pub(super) struct BoundedMemory;

impl Invariant<World> for BoundedMemory {
    fn name(&self) -> &'static str {
        "bounded memory"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Committed { node, .. } = observation else {
            return Ok(());
        };
        let settings = LinkSettings::default();
        let lanes = settings.control_queue_bytes + settings.data_queue_bytes + settings.bulk_queue_bytes;
        let peers = world.nodes().count() - 1;
        let (disk, links) = world.queued_bytes(node);
        if links > (lanes * peers) as u64 {
            return Err(format!(
                "{links} bytes wait on {node} for {peers} peers, at most {lanes} may for each"
            ));
        }
        if disk > MOST_FOR_DISK {
            return Err(format!("{disk} bytes wait on {node} for its disk"));
        }
        let requests = world.requests_in_flight(node);
        if requests > LIMITS.requests {
            let most = LIMITS.requests;
            return Err(format!(
                "{requests} requests are in progress on {node}, at most {most} may"
            ));
        }
        Ok(())
    }

    /// At rest, nothing waits.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        for node in world.nodes() {
            let queued = world.queued_bytes(node);
            if queued != (0, 0) || world.requests_in_flight(node) > 0 {
                let requests = world.requests_in_flight(node);
                return Err(format!(
                    "{node} is at rest and yet {queued:?} bytes and {requests} requests wait"
                ));
            }
        }
        Ok(())
    }
}
