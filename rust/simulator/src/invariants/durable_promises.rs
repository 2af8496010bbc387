//! What a server of a Raft group promises is on its disk when it says so.
//!
//! A vote binds its voter for ever, an acknowledgement of entries too, and no message but the questions that come before an
//! election leaves in a term that a crash could make its sender forget. Checked of each message when it leaves, so no crash
//! has to come at the right moment to show a promise that is none. (Ongaro and Ousterhout, "In Search of an Understandable
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

/// Looks at the disk of whoever sends a message to another server of its group.
pub(super) struct DurablePromises;

/// What must be on the disk for an acknowledgement; `None` for a message that is none.
fn acknowledged(body: &Body) -> Option<LogIndex> {
    match body {
        Body::Accepted { through } => Some(*through),
        Body::HeartbeatAck { durable, .. } => Some(*durable),
        _ => None,
    }
}

/// Whom a message tells that it has its sender's vote.
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
    let broken = |why: String| Err(format!("{server} says {message:?} to {to}, and {why}"));
    if known < *term {
        return broken(format!("its disk knows of no term after {known}"));
    }
    if let Some(candidate) = voted(me, to, body)
        && (known, vote) != (*term, Some(candidate))
    {
        return broken(format!("its disk has, in {known}, the vote {vote:?}"));
    }
    if let Some(through) = acknowledged(body)
        && !world.has_durably(me, group, through, raft.log().term_at(through))
    {
        return broken("its disk does not have that entry, or another in its place".to_owned());
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
