//! A forwarder's pending requests.

use quorate_core::attempts::Attempts;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::Request;
use quorate_protocol::message::Header;
use quorate_protocol::role::ClientRef;
use quorate_raft::types::GroupId;

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attempt {
    /// Not sent; the next attempt is at `retry_at`.
    Waiting { retry_at: Instant },
    /// Sent to this member. At `until` a request that can be retried is sent to another.
    Sent { to: NodeId, until: Instant },
}

/// A pending request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) client: ClientRef,
    pub(super) header: Header,
    pub(super) request: Request,
    pub(super) group: GroupId,
    pub(super) since: Instant,
    pub(super) answer_by: Instant,
    pub(super) attempt: Attempt,
    /// The next member to try without a known leader: an index among the members.
    pub(super) next: usize,
    /// The number of redirects so far.
    pub(super) redirects: u32,
    pub(super) attempts: Attempts,
}

impl PendingRequest {
    /// When it must be checked, without other events.
    pub(super) fn wake(&self) -> Instant {
        match self.attempt {
            Attempt::Waiting { retry_at } => retry_at.min(self.answer_by),
            Attempt::Sent { until, .. } => until.min(self.answer_by),
        }
    }

    pub(super) fn is_with(&self, node: NodeId) -> bool {
        matches!(self.attempt, Attempt::Sent { to, .. } if to == node)
    }
}
