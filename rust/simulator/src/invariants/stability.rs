//! Whoever cannot win an election does not disturb others with one.
//!
//! A server that was cut off, or that others cannot hear, must not come back with a later term and depose a leader that
//! everyone else is content with. So it asks first: when it takes a new term, a majority has told it that it might win.
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

/// Who has encouraged each server since it last called an election.
#[derive(Default)]
pub(super) struct Stability {
    encouraged: BTreeMap<Server, BTreeSet<NodeId>>,
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
            self.encouraged.entry(server).or_default().insert(from.node);
        }
        let calls = |effect: &Effect| matches!(effect, Effect::Emit(TimelineEvent::ElectionStarted { group, .. }) if *group == server.group);
        if !effects.iter().any(calls) {
            return Ok(());
        }
        let encouraged = self.encouraged.remove(&server).unwrap_or_default();
        let reached = |voter: NodeId| voter == server.node || encouraged.contains(&voter);
        if raft.configuration().agreed(reached) == Some(true) {
            return Ok(());
        }
        Err(format!(
            "{server} calls an election in {}, and only {encouraged:?} said that it might win",
            raft.term()
        ))
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
