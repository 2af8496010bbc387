//! Only concurrent writes become siblings.
//!
//! A plain put, without a context, replaces everything in its coordinating replica. So it leaves one value there, and
//! sequential puts through the same replica never accumulate siblings. Plain version vectors fail at this
//! ("sibling explosion"); dots are what prevents it (Preguiça et al., "Dotted version vectors", 2012, section 1).

use std::collections::BTreeSet;

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::local::LocalMessage;
use quorate_protocol::role::{Effect, Event, RoleId};
use quorate_versions::Dot;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks the state after each plain put at the replica that assigns its dot.
#[derive(Default)]
pub(super) struct NoFalseSiblings {
    /// Pending plain puts without a dot.
    plain: BTreeSet<(NodeId, u64)>,
    /// Dots so far. A retry is answered with the dot of the first attempt, and the state may include later writes.
    born: BTreeSet<(KeyspaceId, Dot)>,
}

impl Invariant<World> for NoFalseSiblings {
    fn name(&self) -> &'static str {
        "no false siblings"
    }

    fn observe(&mut self, _world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Handled {
            node, event, effects, ..
        } = observation
        else {
            return Ok(());
        };
        if let Event::Local {
            header,
            message: LocalMessage::Assign { context, .. },
            ..
        } = event
        {
            if context.is_none() {
                self.plain.insert((node, header.request));
            } else {
                self.plain.remove(&(node, header.request));
            }
        }
        for effect in effects {
            let Effect::SendLocal {
                to,
                header,
                message: LocalMessage::Assigned { dot, state, .. },
            } = effect
            else {
                continue;
            };
            let RoleId::Coordinator(keyspace) = *to else {
                continue;
            };
            let plain = self.plain.remove(&(node, header.request));
            if self.born.insert((keyspace, *dot)) && plain && state.siblings().len() != 1 {
                return Err(format!(
                    "a plain put on {node} left {} siblings: {state:?}",
                    state.siblings().len()
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
