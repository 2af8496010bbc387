//! A leader never changes its log but by adding to it.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3.)

use std::collections::BTreeMap;

use quorate_protocol::ids::NodeId;
use quorate_protocol::raft::types::{LogPosition, Term};

use super::{Invariant, Observation, control_server};
use crate::world::World;

/// The term in which each node leads, and the last entry that its log had.
#[derive(Default)]
pub(super) struct LeaderAppendOnly {
    leading: BTreeMap<NodeId, (Term, LogPosition)>,
}

impl Invariant for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((node, raft)) = control_server(world, observation) else {
            return Ok(());
        };
        if !raft.is_leader() {
            self.leading.remove(&node);
            return Ok(());
        }
        let (log, now) = (raft.log(), (raft.term(), raft.log().last()));
        match self.leading.insert(node, now) {
            // The log matches there, or a snapshot stands for it.
            Some((term, last)) if term == now.0 && !log.matches(last) && last.index >= log.base().index => {
                Err(format!("{node} leads in {term} and has lost its entry {last}"))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
