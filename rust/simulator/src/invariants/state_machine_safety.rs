//! No two servers apply different entries at the same index, and after the same entries they have the same state.
//!
//! The control plane's state is in memory, and compared as a whole. For shards, the [log model](crate::log_model) compares the
//! committed entries, and [`super::shard_rows`] the resulting rows.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.4.3.)

use std::collections::BTreeMap;

use quorate_consensus::control::ControlPlane;
use quorate_core::ids::NodeId;
use quorate_protocol::role::RoleId;
use quorate_raft::types::LogIndex;

use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The state after each entry, of the first server observed there.
#[derive(Default)]
pub(super) struct StateMachineSafety {
    states: BTreeMap<LogIndex, (NodeId, ControlPlane)>,
    /// The last observed index of each server.
    seen: BTreeMap<NodeId, LogIndex>,
}

impl StateMachineSafety {
    fn check(&mut self, world: &World, node: NodeId) -> Result<(), String> {
        let Some((applied, state)) = world.control(node).and_then(|control| control.applied()) else {
            return Ok(());
        };
        if self.seen.insert(node, applied) == Some(applied) {
            return Ok(());
        }
        let (first, known) = self
            .states
            .entry(applied)
            .or_insert_with(|| (node, state.clone()));
        if known != state {
            return Err(format!(
                "after entry {applied}, {node} has another state than {first}: {state:?}, not {known:?}"
            ));
        }
        Ok(())
    }
}

impl Invariant<World> for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Handled {
                node,
                role: RoleId::Control,
                ..
            } => self.check(world, node),
            _ => Ok(()),
        }
    }

    /// At the end, all servers have applied the same entries.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        let state = |node: NodeId| {
            let (applied, state) = world.control(node)?.applied()?;
            Some((applied, state.clone()))
        };
        let all: Vec<_> = world.nodes().map(|node| (node, state(node))).collect();
        match all.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            Some(pair) => Err(format!(
                "at the end {:?} and {:?} are in different states",
                pair[0], pair[1]
            )),
            None => Ok(()),
        }
    }
}
