//! What the desk remembers of those who wait.

use crate::api::{Request, Response};
use crate::control::command::{Change, Outcome};
use crate::error::Error;
use crate::ids::NodeId;
use crate::message::Header;
use crate::role::{Address, ClientRef};
use crate::time::Instant;

/// Who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// Another node's desk.
    Peer(Address, Header),
    /// This role itself.
    Own,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wish {
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
    /// At the desk of this node.
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

/// A request in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    pub(super) origin: Origin,
    pub(super) wish: Wish,
    /// As those who wait know it.
    pub(super) deadline: Instant,
    /// Shortly before: the answer takes time, too.
    pub(super) give_up: Instant,
    pub(super) attempt: Attempt,
    /// An attempt was made whose outcome is not known.
    pub(super) maybe: bool,
}

impl Ask {
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.attempt, Attempt::Waiting { retry_at } if retry_at <= now)
    }

    /// Whether this error, of an attempt, may not be the last word: an earlier attempt may have had another end.
    pub(super) fn may_be_otherwise(&self, result: &Result<Response, Error>) -> bool {
        let before_the_log = matches!(
            result,
            Err(Error::Unavailable { .. } | Error::Overloaded(_) | Error::StorageFull(_))
        );
        matches!(result, Err(Error::OutcomeUnknown { .. })) || self.maybe && before_the_log
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
