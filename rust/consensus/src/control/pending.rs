//! What the control role remembers of those who wait.

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::control_command::{Change, Outcome};
use quorate_protocol::message::Header;
use quorate_protocol::role::{Address, ClientRef};

/// Who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// Another node's control role.
    Peer(Address, Header),
    /// This role itself.
    Own,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PendingKind {
    /// A change of the state.
    Change(Change),
    /// All keyspaces.
    List,
    /// Something of a keyspace that this node did not know.
    Relay(ClientRef, Header, Request),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attempt {
    /// Nowhere; nobody looks at it before this.
    Waiting { retry_at: Instant },
    /// In this server's log.
    Proposed,
    /// At the control role of this node.
    Forwarded { to: NodeId },
    /// The leader is asked what is committed.
    Reading,
    /// Done; all nodes that can be reached are to serve it first.
    Serving {
        outcome: Outcome,
        generation: u64,
        until: Instant,
    },
}

/// Whether the answer of a leader's control role says what became of the change, whichever attempt at it was executed: attempts at one
/// change have one name, and the state machine executes it once. Other errors say why one attempt did not get into the log.
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

/// A request in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) origin: Origin,
    pub(super) kind: PendingKind,
    /// As those who wait know it.
    pub(super) deadline: Instant,
    /// Shortly before: the answer takes time, too.
    pub(super) give_up: Instant,
    pub(super) attempt: Attempt,
    /// At a change: its proposals, here and at other nodes.
    pub(super) attempts: Attempts,
}

impl PendingRequest {
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.attempt, Attempt::Waiting { retry_at } if retry_at <= now)
    }

    /// When it must be looked at again, if nothing happens.
    pub(super) fn wake(&self) -> Instant {
        match self.attempt {
            Attempt::Waiting { retry_at } => retry_at.min(self.give_up),
            Attempt::Serving { until, .. } => until.min(self.give_up),
            _ => self.give_up,
        }
    }
}
