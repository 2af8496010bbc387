//! What is committed is in the log of every later leader.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.4.)

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::raft::types::{GroupId, LogIndex, Term};

use super::{Invariant, Observation, Server, raft_server};
use crate::world::World;

/// An entry that a server took for committed.
#[derive(Clone, Copy)]
struct Committed {
    /// The entry's own term.
    term: Term,
    /// In which term it was committed, or an earlier one: the lowest term of a server that knew of it.
    by: Term,
}

/// What was committed, and who was looked at as a leader.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    committed: BTreeMap<GroupId, BTreeMap<LogIndex, Committed>>,
    /// How far each server's word was noted.
    noted: BTreeMap<Server, LogIndex>,
    leaders: BTreeSet<(Server, Term)>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        let (log, term) = (raft.log(), raft.term());
        let committed = self.committed.entry(server.group).or_default();
        if raft.is_leader() && self.leaders.insert((server, term)) {
            for (index, entry) in committed.range(log.base().index..) {
                // One that was elected when a later leader was already at work need not have that one's entries.
                if entry.by < term && log.term_at(*index) != Some(entry.term) {
                    return Err(format!(
                        "{server} leads in {term} without entry {index} of {}, which was committed",
                        entry.term
                    ));
                }
            }
        }
        let noted = self.noted.entry(server).or_default();
        while *noted < log.commit() {
            *noted = noted.next();
            if let Some(of) = log.term_at(*noted) {
                let entry = committed
                    .entry(*noted)
                    .or_insert(Committed { term: of, by: term });
                entry.by = entry.by.min(term);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
