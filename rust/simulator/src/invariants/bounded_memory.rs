//! Queues are bounded.
//!
//! Under all faults of network and disks, the queues of a node stay within their documented bounds: the lanes of each link,
//! the commit queue, the requests of clients.

use quorate_protocol::link::LinkSettings;

use crate::observation::{Invariant, Observation};
use crate::world::World;
use crate::world::listener::LIMITS;

/// The bound of the commit queue: what the admitted requests of a node can cause, with a margin.
const MOST_FOR_DISK: usize = 64 << 20;

/// Checks the queues of a node after each event of its roles.
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
                "{links} bytes are queued on {node} for {peers} peers, the limit is {lanes} for each"
            ));
        }
        if disk > MOST_FOR_DISK {
            return Err(format!("{disk} bytes are queued on {node} for its disk"));
        }
        let requests = world.requests_in_flight(node);
        if requests > LIMITS.requests {
            let most = LIMITS.requests;
            return Err(format!(
                "{requests} requests are in flight on {node}, the limit is {most}"
            ));
        }
        Ok(())
    }

    /// At the end, all queues are empty.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        for node in world.nodes() {
            let queued = world.queued_bytes(node);
            if queued != (0, 0) || world.requests_in_flight(node) > 0 {
                let requests = world.requests_in_flight(node);
                return Err(format!(
                    "{node} is idle, but {queued:?} bytes and {requests} requests are pending"
                ));
            }
        }
        Ok(())
    }
}
