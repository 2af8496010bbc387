//! What is committed is in the log of every later leader.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.4.)

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::ids::NodeId;
use quorate_protocol::raft::types::{LogIndex, Term};

use super::{Invariant, Observation, control_server};
use crate::world::World;

/// The term of every entry that a server took for committed, and who was looked at as a leader.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    committed: BTreeMap<LogIndex, Term>,
    /// How far each server's word was noted.
    noted: BTreeMap<NodeId, LogIndex>,
    leaders: BTreeSet<(Term, NodeId)>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((node, raft)) = control_server(world, observation) else {
            return Ok(());
        };
        let log = raft.log();
        if raft.is_leader() && self.leaders.insert((raft.term(), node)) {
            for (index, term) in self.committed.range(log.base().index..) {
                if log.term_at(*index) != Some(*term) {
                    return Err(format!(
                        "{node} leads in {} without entry {index} of {term}, which was committed",
                        raft.term()
                    ));
                }
            }
        }
        let noted = self.noted.entry(node).or_default();
        while *noted < log.commit() {
            *noted = noted.next();
            if let Some(term) = log.term_at(*noted) {
                self.committed.entry(*noted).or_insert(term);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
