//! At most one server leads in a term.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.2.)

use std::collections::BTreeMap;

use quorate_protocol::ids::NodeId;
use quorate_protocol::raft::types::Term;

use super::{Invariant, Observation, control_server};
use crate::world::World;

/// Who has led in each term.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<Term, NodeId>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((node, raft)) = control_server(world, observation).filter(|(_, raft)| raft.is_leader())
        else {
            return Ok(());
        };
        let first = *self.leaders.entry(raft.term()).or_insert(node);
        if first != node {
            return Err(format!("{first} and {node} both lead in {}", raft.term()));
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        if self.leaders.is_empty() {
            return Err("nobody ever led".to_owned());
        }
        Ok(())
    }
}
