//! Requests in progress at a shard.

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::Now;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::message::Header;
use quorate_protocol::role::{Address, ClientRef, Effect};
use quorate_protocol::shard_command::Command;
use quorate_protocol::telemetry::Span;
use quorate_raft::event::Proposal;

use crate::turn::Turn;

/// Who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// The forwarder of some node.
    Forwarder(Address),
}

/// A request in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) origin: Origin,
    pub(super) header: Header,
    pub(super) request: Request,
    pub(super) started: Now,
    /// In doubt while it is in the log.
    pub(super) attempts: Attempts,
}

/// A command on its way into the log.
pub(super) type Gathered = Proposal<Command>;

impl PendingRequest {
    /// The span of a sampled request.
    pub(super) fn tell(&self, me: NodeId, result: &Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(parent) = self.header.trace.filter(|trace| trace.sampled) else {
            return;
        };
        let (Some(name), Some(group)) = (self.request.raft_span(), self.request.group()) else {
            return;
        };
        let mut span = Span::child(parent, turn.rng, name, me, self.started.wall, turn.now.wall)
            .with("db.system.name", "quorate")
            .with("quorate.group", group)
            .failed(result.as_ref().err());
        if let Ok(Response::Committed(committed)) = result {
            span = span
                .with("quorate.index", committed.index)
                .with("quorate.term", committed.term);
        }
        turn.push(Effect::Span(Box::new(span)));
    }
}
