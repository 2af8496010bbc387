//! Sessions with Raft groups, so that a retried command is executed once.
//!
//! The client has at most one session with each group, opened when its first command is submitted. Commands that are
//! submitted meanwhile wait. Each then gets a **ticket**: the session and the next sequence number, which stay the same
//! in all retries. The group keeps the response to every number until the client acknowledges it, so the numbers in use
//! span at most [`WINDOW`]; further commands wait.
//!
//! A group drops a session that was idle for [`IDLE`] of logged time. The next command is then rejected with
//! [`Error::SessionExpired`] (and so is one whose response the session no longer keeps). If that was its only attempt,
//! it was not executed: the client opens another session and gives it a new ticket. Otherwise an earlier attempt may
//! have been executed, and its response is lost: the caller gets the error, and nothing is executed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_protocol::api::{Request, Response, Stamp};
use quorate_raft::sessions::MAX_ANSWERS;
use quorate_raft::types::GroupId;

use super::operation::{Kind, Operation, Stage, Ticket};
use super::{ClientCore, GRACE, Step};

/// Logged time without a command after which a session expires.
pub const IDLE: Duration = Duration::from_secs(60);

/// Maximum distance between the first number without a response and the last assigned one.
pub const WINDOW: u64 = MAX_ANSWERS as u64 / 2;

/// The client's own operations have ids from here on; those of the application are below.
pub(super) const OWN_OPERATIONS: u64 = 1 << 55;

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// There is none.
    Closed,
    /// It is being opened by this operation.
    Opening { op: u64 },
    /// It is open.
    Open { session: u64 },
}

/// The session with one group, and the operations that wait for a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    keyspace: KeyspaceId,
    state: State,
    /// The last assigned number.
    last: u64,
    /// All numbers up to here are complete.
    floor: u64,
    /// Complete numbers above the floor.
    completed: BTreeSet<u64>,
    /// Operations that wait for a ticket, in the order of their submission.
    queue: BTreeSet<u64>,
}

impl Session {
    fn new(keyspace: KeyspaceId) -> Self {
        Session {
            keyspace,
            state: State::Closed,
            last: 0,
            floor: 0,
            completed: BTreeSet::new(),
            queue: BTreeSet::new(),
        }
    }

    fn opened(&mut self, session: u64) {
        self.state = State::Open { session };
        (self.last, self.floor) = (0, 0);
        self.completed.clear();
    }

    /// The next ticket, if the window allows one.
    fn ticket(&mut self) -> Option<Ticket> {
        let State::Open { session } = self.state else {
            return None;
        };
        if self.last - self.floor >= WINDOW {
            return None;
        }
        self.last += 1;
        Some(Ticket {
            session,
            sequence: self.last,
        })
    }

    fn is(&self, id: u64) -> bool {
        self.state == State::Open { session: id }
    }

    /// No operation waits for the response to this ticket any longer.
    fn complete(&mut self, ticket: Ticket) {
        if !self.is(ticket.session) {
            return;
        }
        assert!(
            ticket.sequence <= self.last,
            "{ticket:?} was not assigned: the last is {}",
            self.last
        );
        self.completed.insert(ticket.sequence);
        while self.completed.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }
}

/// The sessions of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sessions {
    by_group: BTreeMap<GroupId, Session>,
    /// Groups whose waiting commands may make progress.
    ready: BTreeSet<GroupId>,
    last_own_operation: u64,
}

impl Sessions {
    /// The stamp of a command's request.
    pub(super) fn stamp(&self, group: GroupId, ticket: Ticket) -> Stamp {
        let session = self
            .by_group
            .get(&group)
            .filter(|session| session.is(ticket.session));
        Stamp {
            session: ticket.session,
            sequence: ticket.sequence,
            acknowledged: session.map_or(0, |session| session.floor),
        }
    }

    /// An operation has ended.
    pub(super) fn operation_ended(&mut self, op: u64, operation: &Operation) {
        let Some(group) = operation.group else { return };
        let Some(session) = self.by_group.get_mut(&group) else {
            return;
        };
        if let Some(ticket) = operation.ticket {
            session.complete(ticket);
            self.ready.insert(group);
        }
        if operation.stage == Stage::Queued {
            session.queue.remove(&op);
        }
    }

    /// The error of a command that got no ticket in time. Nothing of it was written.
    pub(super) fn no_ticket(&self, group: GroupId, waited: Duration) -> Error {
        let open = |session: &Session| matches!(session.state, State::Open { .. });
        if self.by_group.get(&group).is_some_and(open) {
            return Error::Overloaded(format!(
                "this client has {WINDOW} commands in flight in group {group}, and the first of them got no response \
                 within {} ms: nothing was written; retry later",
                waited.as_millis()
            ));
        }
        Error::ConnectionLost(format!(
            "no leader of group {group} has opened a session within {} ms: nothing was written; check that a majority of \
             its members runs",
            waited.as_millis()
        ))
    }
}

impl ClientCore {
    /// Queues a command for a ticket.
    pub(super) fn enqueue(&mut self, op: u64, keyspace: KeyspaceId, group: GroupId) {
        self.set_stage(op, Stage::Queued);
        let deadline = self.operations[&op].deadline;
        self.set_timer(op, deadline);
        let session = self.sessions.by_group.entry(group);
        let session = session.or_insert_with(|| Session::new(keyspace));
        session.queue.insert(op);
        self.sessions.ready.insert(group);
    }

    /// A command's session has expired. Returns whether the command gets a new ticket: it was certainly not executed.
    pub(super) fn session_expired(&mut self, op: u64) -> bool {
        let operation = self.operations.get_mut(&op).expect("it was just answered");
        let (Some(group), Some(ticket)) = (operation.group, operation.ticket) else {
            return false;
        };
        let certain = !operation.attempts.in_doubt();
        let session = self
            .sessions
            .by_group
            .get_mut(&group)
            .expect("a ticket belongs to a session");
        if session.is(ticket.session) {
            session.state = State::Closed;
        }
        if certain {
            let keyspace = session.keyspace;
            operation.ticket = None;
            self.enqueue(op, keyspace, group);
        }
        certain
    }

    /// Assigns tickets to waiting commands, and opens sessions where there is none.
    pub(super) fn wake_sessions(&mut self, step: &mut Step<'_>) {
        while let Some(group) = self.sessions.ready.pop_first() {
            while let Some((op, ticket)) = self.next_ticket(group) {
                let operation = self.operations.get_mut(&op).expect("it waits in the queue");
                operation.ticket = Some(ticket);
                self.set_stage(op, Stage::Backoff);
                self.route(op, step);
            }
            self.open_session(group, step);
        }
    }

    fn next_ticket(&mut self, group: GroupId) -> Option<(u64, Ticket)> {
        let session = self.sessions.by_group.get_mut(&group)?;
        let op = *session.queue.first()?;
        let ticket = session.ticket()?;
        session.queue.pop_first();
        Some((op, ticket))
    }

    fn open_session(&mut self, group: GroupId, step: &mut Step<'_>) {
        let Some(session) = self.sessions.by_group.get_mut(&group) else {
            return;
        };
        let deadlines = session.queue.iter().map(|op| self.operations[op].deadline);
        let Some(deadline) = deadlines.max().filter(|_| session.state == State::Closed) else {
            return;
        };
        self.sessions.last_own_operation += 1;
        let op = OWN_OPERATIONS + self.sessions.last_own_operation;
        session.state = State::Opening { op };
        let operation = Operation {
            request: Request::OpenSession {
                keyspace: session.keyspace,
                group,
                idle_ms: IDLE.as_millis() as u64,
            },
            kind: Kind::Idempotent,
            group: Some(group),
            ticket: None,
            target: None,
            submitted: step.instant(),
            deadline,
            timer: deadline + GRACE,
            stage: Stage::Backoff,
            bytes: 0,
            attempts: Attempts::default(),
            tried: Vec::new(),
            last_error: None,
            draft: None,
        };
        self.timers.insert((operation.timer, op));
        self.operations.insert(op, operation);
        self.route(op, step);
    }

    /// One of the client's own operations is finished: a session was opened, or could not be.
    pub(super) fn own_operation_ended(
        &mut self,
        op: u64,
        operation: &Operation,
        result: Result<Response, Error>,
        step: &mut Step<'_>,
    ) {
        let group = operation
            .group
            .expect("the client's own operations are for groups");
        let session = self.sessions.by_group.get_mut(&group);
        let session = session.expect("it is being opened");
        assert_eq!(session.state, State::Opening { op }, "group {group}");
        session.state = State::Closed;
        self.sessions.ready.insert(group);
        let error = match result {
            Ok(Response::SessionOpened { session: id, .. }) => return session.opened(id),
            Ok(_) => Error::Refused("unexpected response type to the opening of a session".to_owned()),
            Err(error) => error,
        };
        // The deadline of the waiting commands has passed, too, except for later ones, which have time for another attempt.
        let out_of_time = matches!(error, Error::OutcomeUnknown { .. });
        for waiting in session.queue.clone() {
            let operation = &self.operations[&waiting];
            let error = match out_of_time {
                true if operation.deadline > step.instant() => continue,
                true => {
                    let waited = operation.deadline.since(operation.submitted);
                    self.sessions.no_ticket(group, waited)
                }
                false => error.clone(),
            };
            self.complete_with_error(waiting, error, step);
        }
    }

    /// Closes the sessions of all groups that are reachable.
    pub(super) fn close_sessions(&mut self, step: &mut Step<'_>) {
        for (group, session) in std::mem::take(&mut self.sessions).by_group {
            let State::Open { session: id } = session.state else {
                continue;
            };
            if let Some(connection) = self.connection_to_group(session.keyspace, group) {
                let request = Request::CloseSession {
                    keyspace: session.keyspace,
                    group,
                    session: id,
                };
                self.send_and_forget(connection, request, step);
            }
        }
    }

    /// Checks the invariants between events.
    #[cfg(test)]
    pub(super) fn check_sessions(&self) {
        assert!(self.sessions.ready.is_empty());
        let mut queued = 0;
        for (group, session) in &self.sessions.by_group {
            assert!(session.last - session.floor <= WINDOW, "{group}");
            if let State::Opening { op } = session.state {
                assert!(
                    self.operations.contains_key(&op),
                    "{group} has no opening operation"
                );
            }
            assert!(
                session.queue.is_empty() || session.state != State::Closed,
                "{group}: no session is being opened"
            );
            queued += session.queue.len();
            for op in &session.queue {
                assert_eq!(self.operations[op].stage, Stage::Queued, "{op}");
            }
        }
        let waiting = self
            .operations
            .values()
            .filter(|operation| operation.stage == Stage::Queued);
        assert_eq!(waiting.count(), queued);
    }
}
