//! A leader never changes its log but by adding to it.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3.)

use std::collections::BTreeMap;

use quorate_protocol::raft::types::{LogPosition, Term};

use super::{Invariant, Observation, Server, raft_server};
use crate::world::World;

/// The term in which each server leads, and the last entry that its log had.
#[derive(Default)]
pub(super) struct LeaderAppendOnly {
    leading: BTreeMap<Server, (Term, LogPosition)>,
}

impl Invariant for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        if !raft.is_leader() {
            self.leading.remove(&server);
            return Ok(());
        }
        let (log, now) = (raft.log(), (raft.term(), raft.log().last()));
        match self.leading.insert(server, now) {
            // The log matches there, or a snapshot stands for it.
            Some((term, last)) if term == now.0 && !log.matches(last) && last.index >= log.base().index => {
                Err(format!("{server} leads in {term} and has lost its entry {last}"))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
