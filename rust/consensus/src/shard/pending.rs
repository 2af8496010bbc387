//! A shard's pending requests.

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

/// The origin of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// A node's forwarder.
    Forwarder(Address),
}

/// A pending request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) origin: Origin,
    pub(super) header: Header,
    pub(super) request: Request,
    pub(super) started: Now,
    /// In doubt while it is in the log.
    pub(super) attempts: Attempts,
}

/// A command that is about to be proposed.
pub(super) type QueuedCommand = Proposal<Command>;

impl PendingRequest {
    /// Records the span of a sampled request.
    pub(super) fn record_span(&self, me: NodeId, result: &Result<Response, Error>, turn: &mut Turn<'_>) {
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
