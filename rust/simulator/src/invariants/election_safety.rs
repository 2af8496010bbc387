//! At most one server of a group leads in a term.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.2.)

use std::collections::BTreeMap;

use quorate_checker::figure3;
use quorate_core::ids::NodeId;
use quorate_raft::types::GroupId;

use super::raft_server;
use crate::observation::{Invariant, Observation};
use crate::servers::Seen;
use crate::world::World;

/// The leaders of each group by term.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<GroupId, BTreeMap<u64, NodeId>>,
}

impl Invariant<World> for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation).filter(|(_, raft)| raft.is_leader())
        else {
            return Ok(());
        };
        let leaders = self.leaders.entry(server.group).or_default();
        server.in_group(figure3::election_safety(&Seen(server.node, raft), leaders))
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        if self.leaders.is_empty() {
            return Err("no server was ever a leader".to_owned());
        }
        Ok(())
    }
}
