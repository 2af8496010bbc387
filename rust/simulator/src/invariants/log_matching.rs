//! Logs that have an entry in common, the same index with the same term, are the same up to there.
//!
//! By induction it is enough that an index and a term name one entry and the one before it. (Ongaro and Ousterhout, "In Search
//! of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.3.)

use std::collections::BTreeMap;

use quorate_protocol::raft::entry::Entry;
use quorate_protocol::raft::types::{GroupId, LogPosition};

use super::{Invariant, Observation, raft_server};
use crate::world::World;

/// Every entry that ever stood in a log of a group, and the name of the one before it.
#[derive(Default)]
pub(super) struct LogMatching {
    seen: BTreeMap<(GroupId, LogPosition), (Entry, LogPosition)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        let log = raft.log();
        let mut index = log.last().index;
        // From the end to the first that is known: what is before that was compared when it became known.
        while let Some(entry) = log.entry(index) {
            let before = LogPosition {
                index: index.previous(),
                term: log.term_at(index.previous()).unwrap_or_default(),
            };
            let name = (server.group, entry.position());
            match self.seen.get(&name) {
                None => {
                    self.seen.insert(name, (entry.clone(), before));
                }
                Some((known, previous)) if known == entry && *previous == before => return Ok(()),
                Some((known, previous)) => {
                    return Err(format!(
                        "{server} has {entry:?} after {before}, elsewhere there is {known:?} after {previous}"
                    ));
                }
            }
            index = index.previous();
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
