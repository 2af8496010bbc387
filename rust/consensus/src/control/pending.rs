//! The control role's pending requests.

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::control_command::{Change, Outcome};
use quorate_protocol::message::Header;
use quorate_protocol::role::{Address, ClientRef};

/// The origin of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// Another node's control role.
    Peer(Address, Header),
    /// This role.
    Own,
}

/// The kind of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PendingKind {
    /// A change of the state.
    Change(Change),
    /// A list of all keyspaces.
    List,
    /// A request for a keyspace that was unknown to this node.
    Relay(ClientRef, Header, Request),
}

/// The state of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attempt {
    /// Not sent; the next attempt is not before `retry_at`.
    Waiting { retry_at: Instant },
    /// In this server's log.
    Proposed,
    /// Sent to the control role of this node.
    Forwarded { to: NodeId },
    /// Waiting for the leader's commit index.
    Reading,
    /// Committed; waiting for all reachable nodes to serve it.
    Serving {
        outcome: Outcome,
        generation: u64,
        until: Instant,
    },
}

/// Whether an answer of a leader's control role is the outcome of the change, whichever attempt was executed:
/// all attempts at a change have one id, and the state machine executes it once. Other errors mean that one
/// attempt did not get into the log.
pub(super) fn is_outcome(result: &Result<Response, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => matches!(
            error,
            Error::InvalidArgument(_)
                | Error::NotFound(_)
                | Error::KeyspaceExists(_)
                | Error::LimitExceeded { .. }
        ),
    }
}

/// A pending request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) origin: Origin,
    pub(super) kind: PendingKind,
    /// The client's deadline.
    pub(super) deadline: Instant,
    /// Shortly before: the answer takes time, too.
    pub(super) answer_by: Instant,
    pub(super) attempt: Attempt,
    /// For a change: its proposals, here and at other nodes.
    pub(super) attempts: Attempts,
}

impl PendingRequest {
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.attempt, Attempt::Waiting { retry_at } if retry_at <= now)
    }

    /// When it must be checked again, without other events.
    pub(super) fn wake(&self) -> Instant {
        match self.attempt {
            Attempt::Waiting { retry_at } => retry_at.min(self.answer_by),
            Attempt::Serving { until, .. } => until.min(self.answer_by),
            _ => self.answer_by,
        }
    }
}
