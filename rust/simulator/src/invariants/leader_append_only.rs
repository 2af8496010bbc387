//! A leader only appends to its log.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3.)

use std::collections::BTreeMap;

use quorate_checker::figure3;
use quorate_checker::figure3::Server as _;
use quorate_raft::types::GroupId;

use super::{raft_server, raft_servers};
use crate::observation::{Invariant, Observation};
use crate::servers::Seen;
use crate::world::World;

/// The observed logs of each group's leaders.
#[derive(Default)]
pub(super) struct LeaderAppendOnly {
    led: BTreeMap<GroupId, figure3::LeaderAppendOnly>,
}

impl Invariant<World> for LeaderAppendOnly {
    fn name(&self) -> &'static str {
        "leader append-only"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation).filter(|(_, raft)| raft.is_leader())
        else {
            return Ok(());
        };
        let led = self.led.entry(server.group).or_default();
        server.in_group(led.check(&Seen(server.node, raft)))
    }

    /// The final leaders have all of their observed entries.
    fn finish(&mut self, world: &World) -> Result<(), String> {
        for (group, led) in &self.led {
            for leader in raft_servers(world, *group) {
                if leader.leads() {
                    led.check_thoroughly(&leader)
                        .map_err(|why| format!("in {group}: {why}"))?;
                }
            }
        }
        Ok(())
    }
}
