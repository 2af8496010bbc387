//! A request on its way through a gate.

use crate::api::{ReadLevel, Request, Response};
use crate::ids::NodeId;
use crate::message::Header;
use crate::raft::types::GroupId;
use crate::role::ClientRef;
use crate::time::Instant;

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
pub(super) struct Ask {
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
    /// An attempt was made whose outcome is not known.
    pub(super) maybe: bool,
}

impl Ask {
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

/// The group that a request of consensus mode is for; `None` for others.
pub(super) fn group_of(request: &Request) -> Option<GroupId> {
    match request {
        Request::Propose { group, .. }
        | Request::OpenSession { group, .. }
        | Request::CloseSession { group, .. }
        | Request::Read { group, .. }
        | Request::ReadRange { group, .. }
        | Request::ReadLog { group, .. } => Some(*group),
        _ => None,
    }
}

/// Who leads, if an answer tells for certain that somebody did a moment ago.
pub(super) fn leader_in(response: &Response) -> Option<NodeId> {
    match response {
        Response::Committed(committed) => Some(committed.leader),
        Response::SessionOpened { leader, .. } => Some(*leader),
        Response::Records { view, .. }
        | Response::RecordPage { view, .. }
        | Response::LogPage { view, .. } => view.leader.filter(|_| view.staleness_micros == Some(0)),
        _ => None,
    }
}

/// Whether any member may answer it.
pub(super) fn is_stale_read(request: &Request) -> bool {
    matches!(
        request,
        Request::Read {
            level: ReadLevel::Stale,
            ..
        } | Request::ReadRange {
            level: ReadLevel::Stale,
            ..
        } | Request::ReadLog {
            level: ReadLevel::Stale,
            ..
        }
    )
}
