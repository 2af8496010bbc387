//! If two logs have an entry with the same index and term, they are identical up to that entry.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.3.)

use std::collections::BTreeMap;

use quorate_checker::figure3;
use quorate_raft::entry::Entry;
use quorate_raft::types::GroupId;

use super::{raft_server, raft_servers};
use crate::observation::{Invariant, Observation};
use crate::servers::Seen;
use crate::world::World;

/// All observed log entries of each group.
#[derive(Default)]
pub(super) struct LogMatching {
    seen: BTreeMap<GroupId, figure3::LogMatching<Entry>>,
}

impl Invariant<World> for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        let seen = self.seen.entry(server.group).or_default();
        server.in_group(seen.check(&Seen(server.node, raft)))
    }

    /// Compares the final logs entry by entry.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        for group in self.seen.keys() {
            figure3::log_matching(&raft_servers(world, *group))
                .map_err(|why| format!("in {group}: {why}"))?;
        }
        Ok(())
    }
}
