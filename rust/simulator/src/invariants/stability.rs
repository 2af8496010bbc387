//! A server that cannot win an election does not start one.
//!
//! A server that was partitioned, in one or both directions, must not return with a later term and depose a healthy leader. So
//! it runs a pre-vote: before it takes a new term, a majority has granted it a pre-vote.
//! (Ongaro, "Consensus: Bridging Theory and Practice", 2014, sections 4.2.3 and 9.6: the pre-vote.)

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::NodeId;
use quorate_protocol::message::Message;
use quorate_protocol::role::{Effect, Event};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::message::Body;

use super::{Server, raft_server};
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The pre-votes granted to each server since its last election.
#[derive(Default)]
pub(super) struct Stability {
    granted: BTreeMap<Server, BTreeSet<NodeId>>,
}

impl Invariant<World> for Stability {
    fn name(&self) -> &'static str {
        "stability"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Handled { event, effects, .. } = observation else {
            return Ok(());
        };
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        if let Event::Message {
            from,
            message: Message::Raft { message, .. },
            ..
        } = event
            && message.body == (Body::PreVoteAnswer { granted: true })
        {
            self.granted.entry(server).or_default().insert(from.node);
        }
        let calls = |effect: &Effect| matches!(effect, Effect::Emit(TimelineEvent::ElectionStarted { group, .. }) if *group == server.group);
        if !effects.iter().any(calls) {
            return Ok(());
        }
        let granted = self.granted.remove(&server).unwrap_or_default();
        let reached = |voter: NodeId| voter == server.node || granted.contains(&voter);
        if raft.configuration().agreed(reached) == Some(true) {
            return Ok(());
        }
        Err(format!(
            "{server} starts an election in {} with pre-votes only of {granted:?}",
            raft.term()
        ))
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
