//! Operations: which node gets them, when they are sent again, and how they end.

use std::time::Duration;

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::frame::{self, FrameError, MAX_REQUEST_FRAME};
use quorate_protocol::telemetry::TraceContext;
use serde::Serialize;

use super::links::{operation_of, wire_id};
use super::many::PARTS;
use super::operation::{Disposition, Draft, Kind, Stage};
use super::routing::Choice;
use super::sessions::OWN_OPERATIONS;
use super::{ClientCore, ClientEffect, GRACE, Outcome, Step, closed, jitter};

/// A node that has sent nothing for this long, with a request to a Raft group pending, is probed. If it stays silent
/// for as long again, another member gets the request as well: that is safe, and the deadline is not spent on a node
/// that is stopped or partitioned.
const PROBE_AFTER: Duration = Duration::from_millis(100);

/// A [`RequestFrame`](quorate_protocol::api::RequestFrame) that borrows its request; the bytes are the same.
#[derive(Serialize)]
struct BorrowedFrame<'a> {
    id: u64,
    deadline_ms: u32,
    trace: Option<TraceContext>,
    request: &'a Request,
}

impl ClientCore {
    /// Sends the operation to the most preferred node, or leaves it waiting, or fails it.
    pub(super) fn route(&mut self, op: u64, step: &mut Step<'_>) {
        match self.choose(op, step.instant()) {
            Choice::Send(connection) => self.send(op, connection, step),
            Choice::Wait => {
                let operation = &self.operations[&op];
                if !matches!(operation.stage, Stage::Waiting { .. }) {
                    let deadline = operation.deadline;
                    self.set_stage(
                        op,
                        Stage::Waiting {
                            since: step.instant(),
                        },
                    );
                    self.set_timer(op, deadline);
                }
                self.retry_soon(op, step.instant());
            }
            Choice::Fail(error) => {
                let error = match self.operations[&op].kind {
                    Kind::Read => error,
                    Kind::Idempotent | Kind::Write => self.verdict(op, Some(error.to_string()), || error),
                };
                self.complete_with_error(op, error, step);
            }
        }
    }

    /// Routes waiting operations again.
    pub(super) fn route_waiting(&mut self, step: &mut Step<'_>) {
        for op in self.waiting.iter().copied().collect::<Vec<u64>>() {
            self.route(op, step);
        }
    }

    fn send(&mut self, op: u64, connection: u64, step: &mut Step<'_>) {
        let now = step.instant();
        let operation = self.operations.get_mut(&op).expect("it is being routed");
        if operation.sent() == u8::MAX {
            // Attempt numbers are exhausted.
            let cause = Some("there were too many attempts".to_owned());
            let error = self.verdict(op, cause, || self.unreachable());
            return self.complete_with_error(op, error, step);
        }
        if let (Some(ticket), Some(group)) = (operation.ticket, operation.group)
            && let Request::Propose { session, .. } = &mut operation.request
        {
            *session = Some(self.sessions.stamp(group, ticket));
        }
        let probes = operation.group.is_some() && operation.target.is_none();
        let mut attempts = operation.attempts;
        attempts.begin();
        let frame = BorrowedFrame {
            id: wire_id(op, attempts.count() as u8),
            deadline_ms: milliseconds(operation.deadline.since(now)),
            trace: operation.draft.as_ref().map(Draft::context),
            request: &operation.request,
        };
        if let Err(error) = frame::encode(&frame, MAX_REQUEST_FRAME, &mut self.scratch) {
            let error = unencodable(&error);
            return self.complete_with_error(op, error, step);
        }
        operation.attempts = attempts;
        let bytes = self.scratch.split().freeze();
        let state = self.connections.get_mut(&connection).expect("it was just chosen");
        state.sent += bytes.len() as u64;
        state.operation_sent(now);
        let end = state.sent;
        step.effects.push(ClientEffect::Send { connection, bytes });
        self.set_stage(op, Stage::Sent { connection, end });
        let end = self.operations[&op].deadline + GRACE;
        self.set_timer(op, if probes { end.min(now + PROBE_AFTER) } else { end });
        let unknown = self.operations[&op]
            .request
            .keyspace()
            .is_some_and(|id| self.directory.keyspace(id).is_none());
        if unknown {
            self.request_keyspaces(connection, step);
        }
    }

    /// Moves an operation to another stage, and updates the indexes.
    pub(super) fn set_stage(&mut self, op: u64, stage: Stage) {
        let operation = self.operations.get_mut(&op).expect("it is in flight");
        if let Stage::Sent { connection, .. } = operation.stage
            && let Some(state) = self.connections.get_mut(&connection)
        {
            state.operation_left();
        }
        let before = std::mem::replace(&mut operation.stage, stage);
        if matches!(before, Stage::Waiting { .. }) {
            self.waiting.remove(&op);
        }
        if matches!(stage, Stage::Waiting { .. }) {
            self.waiting.insert(op);
        }
    }

    pub(super) fn set_timer(&mut self, op: u64, at: Instant) {
        let operation = self.operations.get_mut(&op).expect("it is in flight");
        if operation.timer != at {
            self.timers.remove(&(operation.timer, op));
            operation.timer = at;
            self.timers.insert((at, op));
        }
    }

    /// A node has responded to the attempt with this id, which may be obsolete.
    pub(super) fn operation_answered(
        &mut self,
        connection: u64,
        id: u64,
        response: Result<Response, Error>,
        step: &mut Step<'_>,
    ) {
        let Some((op, attempt)) = operation_of(id) else {
            return;
        };
        let Some(operation) = self.operations.get(&op) else {
            return;
        };
        let group = operation.group;
        let here = matches!(operation.stage, Stage::Sent { connection: at, .. } if at == connection);
        let current = here && operation.attempts.is_open(u16::from(attempt));
        let response = match operation.checked(response) {
            Ok(response) => response,
            Err(error) if current => {
                self.attempts_of(op).give_up();
                return self.complete(op, Err(error), Some(connection), step);
            }
            Err(_) => return,
        };
        // The response to an earlier attempt of a read or a command is valid, too.
        if attempt <= operation.sent() && operation.is_outcome(&response) {
            if let (Some(group), Ok(answer)) = (group, &response) {
                self.learn_leader(group, answer);
            }
            self.attempts_of(op).resolved();
            return self.complete(op, response, Some(connection), step);
        }
        // The other attempts were given up: their errors do not change what is known of them.
        let Err(error) = response else { return };
        if !current {
            return;
        }
        if matches!(error, Error::SessionExpired(_)) {
            self.attempts_of(op).rejected();
            if self.session_expired(op) {
                return;
            }
        }
        self.attempts_of(op).failed(&error);
        let operation = &self.operations[&op];
        let deadline = operation.deadline;
        let keyspace_exists = operation
            .request
            .keyspace()
            .is_some_and(|id| self.directory.keyspace(id).is_some());
        let another_replica = self.has_another_replica(op, connection);
        let disposition = self.operations[&op].disposition(&error, keyspace_exists, another_replica);
        let Disposition::Elsewhere { after } = disposition else {
            return self.complete(op, Err(error), Some(connection), step);
        };
        let wait = jitter(after, step.rng);
        if step.instant() + wait >= deadline {
            return self.complete(op, Err(error), Some(connection), step);
        }
        let operation = self.operations.get_mut(&op).expect("it was just found");
        operation.last_error = Some(error);
        if let (Some(node), _) = self.peer_of(connection) {
            self.mark_tried(op, node);
            if let Some(group) = group {
                self.leaders.retain(|of, leader| *of != group || *leader != node);
            }
        }
        self.set_stage(op, Stage::Backoff);
        if wait.is_zero() {
            self.route(op, step);
        } else {
            self.set_timer(op, step.instant() + wait);
        }
    }

    fn attempts_of(&mut self, op: u64) -> &mut Attempts {
        let operation = self.operations.get_mut(&op).expect("it is in flight");
        &mut operation.attempts
    }

    /// Records that a node was tried; when none is left, all may be tried again.
    fn mark_tried(&mut self, op: u64, node: NodeId) {
        let members = self.nodes.len();
        let operation = self.operations.get_mut(&op).expect("it is in flight");
        if !operation.tried.contains(&node) {
            operation.tried.push(node);
        }
        if operation.tried.len() >= members {
            operation.tried.clear();
        }
    }

    /// Abandons the attempt at a node, which may still respond, and retries on another.
    pub(super) fn retry_elsewhere(&mut self, op: u64, node: NodeId, step: &mut Step<'_>) {
        self.mark_tried(op, node);
        let operation = self.operations.get_mut(&op).expect("it is in flight");
        operation.attempts.give_up();
        let deadline = operation.deadline;
        self.set_stage(op, Stage::Backoff);
        self.set_timer(op, deadline);
        self.route(op, step);
    }

    /// The connection was lost; `written` of its bytes may have reached the node.
    pub(super) fn operations_lost(
        &mut self,
        connection: u64,
        written: u64,
        node: Option<NodeId>,
        error: &Error,
        step: &mut Step<'_>,
    ) {
        let lost: Vec<(u64, u64)> = self
            .operations
            .iter()
            .filter_map(|(op, operation)| match operation.stage {
                Stage::Sent { connection: at, end } if at == connection => Some((*op, end)),
                _ => None,
            })
            .collect();
        for (op, end) in lost {
            let operation = self.operations.get_mut(&op).expect("it was just found");
            let reached = end <= written;
            if reached {
                operation.attempts.give_up();
            } else {
                operation.attempts.rejected();
                operation.last_error = Some(error.clone());
            }
            if (operation.kind == Kind::Write && reached) || operation.deadline <= step.instant() {
                let cause = (operation.deadline > step.instant()).then(|| error.to_string());
                let error = self.verdict(op, cause, || error.clone());
                self.complete_with_error(op, error, step);
                continue;
            }
            let deadline = operation.deadline;
            if let Some(node) = node {
                self.mark_tried(op, node);
            }
            self.set_stage(op, Stage::Backoff);
            self.set_timer(op, deadline);
            self.route(op, step);
        }
    }

    /// Fails the operations whose deadline has passed, and routes those whose backoff is over.
    pub(super) fn operations_due(&mut self, step: &mut Step<'_>) {
        let now = step.instant();
        while let Some((at, op)) = self.timers.first().copied()
            && at <= now
        {
            let operation = self
                .operations
                .get_mut(&op)
                .expect("a timer belongs to an operation");
            if operation.stage == Stage::Backoff && now < operation.deadline {
                let deadline = operation.deadline;
                self.set_timer(op, deadline);
                self.route(op, step);
                continue;
            }
            if let Stage::Sent { connection, .. } = operation.stage
                && now < operation.deadline + GRACE
            {
                self.response_overdue(op, connection, step);
                continue;
            }
            let timeout = operation.deadline.since(operation.submitted);
            if let (Stage::Queued, Some(group)) = (operation.stage, operation.group) {
                let error = self.sessions.no_ticket(group, timeout);
                self.complete_with_error(op, error, step);
                continue;
            }
            let error = self.verdict(op, None, || {
                let reason = self.unreachable();
                Error::ConnectionLost(format!(
                    "no node was reachable within {} ms: {reason}",
                    timeout.as_millis()
                ))
            });
            self.complete_with_error(op, error, step);
        }
    }

    /// A request to a Raft group has been pending for a while. If its node is silent altogether, it is probed; if it
    /// stays silent, other members get the request.
    fn response_overdue(&mut self, op: u64, connection: u64, step: &mut Step<'_>) {
        let now = step.instant();
        let state = &self.connections[&connection];
        let (heard, probed) = (state.heard(), state.probed());
        let next = match probed {
            _ if heard + PROBE_AFTER > now => heard + PROBE_AFTER,
            Some(at) if at + PROBE_AFTER > now => at + PROBE_AFTER,
            Some(_) => {
                self.suspect(connection, step);
                now + PROBE_AFTER
            }
            None => {
                self.probe(connection, step);
                now + PROBE_AFTER
            }
        };
        // It may have moved or ended.
        if let Some(operation) = self.operations.get(&op)
            && operation.timer <= now
        {
            let end = operation.deadline + GRACE;
            self.set_timer(op, end.min(next));
        }
    }

    /// The client is being closed.
    pub(super) fn interrupt(&mut self, op: u64, step: &mut Step<'_>) {
        let error = match self.operations[&op].kind {
            Kind::Read => closed(),
            Kind::Idempotent | Kind::Write => {
                self.verdict(op, Some("the client was closed".to_owned()), closed)
            }
        };
        self.complete_with_error(op, error, step);
    }

    /// The error of an operation that will not get a response.
    fn verdict(&self, op: u64, cause: Option<String>, unreachable: impl FnOnce() -> Error) -> Error {
        let operation = &self.operations[&op];
        operation.verdict(self.directory.required(&operation.request), cause, unreachable)
    }

    pub(super) fn complete_with_error(&mut self, op: u64, error: Error, step: &mut Step<'_>) {
        self.complete(op, Err(error), None, step);
    }

    /// The only place where operations end.
    fn complete(
        &mut self,
        op: u64,
        result: Result<Response, Error>,
        connection: Option<u64>,
        step: &mut Step<'_>,
    ) {
        let operation = self.operations.remove(&op).expect("an operation completes once");
        let result = operation.conclude(result, self.directory.required(&operation.request));
        match operation.stage {
            Stage::Sent { connection, .. } => {
                if let Some(state) = self.connections.get_mut(&connection) {
                    state.operation_left();
                }
            }
            Stage::Waiting { .. } => {
                self.waiting.remove(&op);
            }
            Stage::Backoff | Stage::Queued => {}
        }
        self.sessions.operation_ended(op, &operation);
        self.bytes_in_flight -= operation.bytes;
        self.timers.remove(&(operation.timer, op));
        if op >= OWN_OPERATIONS {
            return self.own_operation_ended(op, &operation, result, step);
        }
        let collection = operation
            .request
            .keyspace()
            .and_then(|id| self.directory.keyspace(id))
            .map(|keyspace| keyspace.settings.name.as_str());
        if let Some(span) = operation.span(step.now.wall, collection, result.as_ref().err()) {
            step.effects.push(ClientEffect::Span(Box::new(span)));
        }
        let (node, boot) = connection.map_or((None, None), |connection| self.peer_of(connection));
        let outcome = Outcome {
            result,
            node,
            boot,
            attempts: operation.sent(),
            elapsed: step.instant().since(operation.submitted),
            trace_id: operation.draft.map(|draft| draft.trace_id),
        };
        if op >= PARTS {
            return self.part_ended(op, outcome);
        }
        step.effects.push(ClientEffect::Complete { op, outcome });
    }
}

fn unencodable(error: &FrameError) -> Error {
    match error {
        FrameError::TooLarge { size, limit } => Error::LimitExceeded {
            what: "the request's length in bytes".to_owned(),
            size: *size as u64,
            limit: *limit as u64,
            remedy: "pass a smaller value or context".to_owned(),
        },
        other => Error::invalid(other.to_string()),
    }
}

/// Rounded up, so that a node's deadline is never before the client's.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
