//! The promises of a server of a Raft group are durable when they are sent.
//!
//! A vote or an acknowledgement of entries binds its sender, and no message but a pre-vote request is sent in a term that a
//! crash could make its sender forget. Each message is checked when it is sent, so that no crash at the right moment is
//! needed to detect a violation. (Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", 2014, figure 2: "updated on stable storage before responding to RPCs".)

use quorate_core::ids::NodeId;
use quorate_protocol::message::Message;
use quorate_protocol::role::Effect;
use quorate_raft::Raft;
use quorate_raft::message::{Body, Message as RaftMessage};
use quorate_raft::types::{HardState, LogIndex};

use super::{Server, raft_server};
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks the disk of every server that sends a message to another server of its group.
pub(super) struct DurablePromises;

/// The entry that must be durable for an acknowledgement; `None` for other messages.
fn acknowledged(body: &Body) -> Option<LogIndex> {
    match body {
        Body::Accepted { through } => Some(*through),
        Body::HeartbeatAck { durable, .. } => Some(*durable),
        _ => None,
    }
}

/// The candidate that a message grants its sender's vote.
fn voted(me: NodeId, to: NodeId, body: &Body) -> Option<NodeId> {
    match body {
        Body::Vote { .. } => Some(me),
        Body::VoteAnswer { granted: true } => Some(to),
        _ => None,
    }
}

fn check(
    world: &World,
    (server, raft): (Server, &Raft),
    to: NodeId,
    message: &RaftMessage,
) -> Result<(), String> {
    let Server { group, node: me } = server;
    let RaftMessage { term, body } = message;
    if matches!(body, Body::PreVote { .. } | Body::PreVoteAnswer { .. }) {
        return Ok(());
    }
    let HardState { term: known, vote } = world.durable_hard_state(me, group);
    let broken = |why: String| Err(format!("{server} sends {message:?} to {to}, but {why}"));
    if known < *term {
        return broken(format!("the latest term on its disk is {known}"));
    }
    if let Some(candidate) = voted(me, to, body)
        && (known, vote) != (*term, Some(candidate))
    {
        return broken(format!("its disk has in {known} the vote {vote:?}"));
    }
    if let Some(through) = acknowledged(body)
        && !world.has_durably(me, group, through, raft.log().term_at(through))
    {
        return broken("its disk does not have that entry".to_owned());
    }
    Ok(())
}

impl Invariant<World> for DurablePromises {
    fn name(&self) -> &'static str {
        "durable promises"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Handled { effects, .. } = observation else {
            return Ok(());
        };
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        for effect in effects {
            if let Effect::Send {
                to,
                message: Message::Raft { message, .. },
                ..
            } = effect
            {
                check(world, (server, raft), to.node, message)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
