//! A request on its way through a forwarder.

use quorate_core::attempts::Attempts;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::Request;
use quorate_protocol::message::Header;
use quorate_protocol::role::ClientRef;
use quorate_raft::types::GroupId;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attempt {
    /// Nowhere, until then.
    Waiting { retry_at: Instant },
    /// With this member. If it says nothing until then, and the request may be asked twice, another is asked.
    Sent { to: NodeId, until: Instant },
}

/// A request in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) client: ClientRef,
    pub(super) header: Header,
    pub(super) request: Request,
    pub(super) group: GroupId,
    pub(super) since: Instant,
    pub(super) give_up: Instant,
    pub(super) attempt: Attempt,
    /// Whom to ask next, if nobody is known to lead: a place among the members.
    pub(super) next: usize,
    /// Members have said that they do not lead, so often.
    pub(super) detours: u32,
    pub(super) attempts: Attempts,
}

impl PendingRequest {
    /// When it is looked at, if nothing happens.
    pub(super) fn wake(&self) -> Instant {
        match self.attempt {
            Attempt::Waiting { retry_at } => retry_at.min(self.give_up),
            Attempt::Sent { until, .. } => until.min(self.give_up),
        }
    }

    pub(super) fn is_with(&self, node: NodeId) -> bool {
        matches!(self.attempt, Attempt::Sent { to, .. } if to == node)
    }
}
