//! Pending requests of clients and other nodes' control roles, from their arrival to the group and back.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::attempts::{self, Attempts};
use quorate_core::bugs::Bug;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::control_command::{Change, Command, Outcome};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, ClientRef, Effect};
use quorate_protocol::topology::MAX_VOTERS;
use quorate_raft::event::{ProposeError, ReadLevel, ReadRequest};
use quorate_raft::server::Rejection;
use quorate_raft::sessions::Answer;
use quorate_raft::types::LogPosition;
use quorate_versions::WriteId;

use crate::control::pending::{Attempt, Origin, PendingKind, PendingRequest, is_outcome};
use crate::control::{Control, LIST_TIMEOUT, PROPOSALS_TIMER};
use crate::turn::Turn;

/// The minimum time between two attempts that failed at once.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The answer is sent this long before its deadline, or an eighth of the time if that is less.
const DEADLINE_MARGIN: Duration = Duration::from_millis(50);
/// How long a forwarded change is remembered beyond its deadline: longer than a message stays in any network.
/// Of a duplicated message, one copy could be rejected and the other executed.
const PROPOSAL_MEMORY: Duration = Duration::from_secs(10);
/// How long this role tries a change of its own before it checks again whether that is needed.
const OWN_TIMEOUT: Duration = Duration::from_secs(10);

impl Control {
    // ---- arrival ----

    pub(super) fn request(
        &mut self,
        client: ClientRef,
        header: Header,
        request: Request,
        turn: &mut Turn<'_>,
    ) {
        let origin = Origin::Client(client);
        let deadline = header.deadline;
        let change = |id, command| PendingKind::Change(Change { id, command });
        let unnamed = WriteId {
            client: u64::from(self.me().0),
            sequence: self.last_request + 1,
        };
        let kind = match request {
            Request::Topology => {
                let response = Response::Topology(Box::new(self.topology()));
                return reply(client, Ok(response), turn);
            }
            Request::Membership => {
                let response = Response::Membership(Box::new(self.membership()));
                return reply(client, Ok(response), turn);
            }
            Request::Groups => {
                let claims = vec![self.claim(turn.now.instant)];
                return reply(client, Ok(Response::Groups(claims)), turn);
            }
            Request::ListKeyspaces => PendingKind::List,
            Request::CreateKeyspace(settings) => {
                // Invalid requests are rejected here, leader or not.
                if let Err(error) = settings.validate(self.topology().members.len()) {
                    return reply(client, Err(error), turn);
                }
                change(unnamed, Command::CreateKeyspace(settings))
            }
            Request::AlterKeyspace {
                name,
                change: settings,
                write_id,
            } => {
                let command = Command::AlterKeyspace {
                    name,
                    change: settings,
                };
                change(write_id, command)
            }
            Request::DropKeyspace { name, write_id } => change(write_id, Command::DropKeyspace { name }),
            request if request.keyspace().is_some() => PendingKind::Relay(client, header, request),
            other => {
                let error = Error::invalid(format!("the control plane does not support {other:?}"));
                return reply(client, Err(error), turn);
            }
        };
        self.begin(origin, kind, deadline, turn.now);
    }

    /// Another node's control role has forwarded a change: it takes this server for the leader.
    pub(super) fn propose_forwarded(
        &mut self,
        from: Address,
        header: Header,
        change: Change,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now.instant;
        let until = header.deadline.max(now) + PROPOSAL_MEMORY;
        let new = self.proposals.is_new((from.node, header.request), until, now);
        if !new && !self.surroundings.bugs.has(Bug::DuplicatesAccepted) {
            return;
        }
        let origin = Origin::Peer(from, header);
        self.begin(origin, PendingKind::Change(change), header.deadline, turn.now);
    }

    /// Starts a change that this role itself needs.
    pub(super) fn propose_own(&mut self, command: Command, turn: &mut Turn<'_>) {
        let id = WriteId {
            client: u64::from(self.me().0),
            sequence: self.last_request + 1,
        };
        let deadline = turn.now.instant + OWN_TIMEOUT;
        self.begin(
            Origin::Own,
            PendingKind::Change(Change { id, command }),
            deadline,
            turn.now,
        );
    }

    /// Whether this node's registration is pending.
    pub(super) fn is_registering(&self) -> bool {
        self.pending.values().any(|pending| {
            let registers =
                matches!(&pending.kind, PendingKind::Change(change) if matches!(change.command, Command::Register(_)));
            registers && pending.origin == Origin::Own
        })
    }

    fn begin(&mut self, origin: Origin, kind: PendingKind, deadline: Instant, now: Now) {
        self.last_request += 1;
        let left = deadline.since(now.instant);
        let retry_at = now.instant;
        let pending = PendingRequest {
            origin,
            kind,
            deadline,
            answer_by: deadline - DEADLINE_MARGIN.min(left / 8),
            attempt: Attempt::Waiting { retry_at },
            attempts: Attempts::default(),
        };
        self.pending.insert(self.last_request, pending);
    }

    // ---- progress ----

    /// Advances every pending request that can be, and sets the timer.
    pub(super) fn advance_all(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let leads = (self.leader(), self.takes_changes());
        if self.led != leads {
            self.led = leads;
            self.leader_changed(turn);
        }
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            match self.pending.get(&id) {
                Some(pending) if pending.answer_by <= now => self.expire(id, turn),
                Some(pending) if pending.is_waiting(now) => self.advance(id, turn),
                _ => {}
            }
        }
        self.answer_served(turn);
        let wake = self.pending.values().map(PendingRequest::wake).min();
        if let Some(at) = wake
            && self.timer.is_none_or(|timer| at < timer)
        {
            // A request that failed at once is retried a little later.
            let at = at.max(now + Duration::from_millis(1));
            self.timer = Some(at);
            turn.effects.push(Effect::SetTimer {
                id: PROPOSALS_TIMER,
                at,
            });
        }
    }

    fn advance(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let leader = self.leader();
        match &pending.kind {
            // Only a leader can bootstrap a cluster without a state, and each leader has its own bootstrap.
            PendingKind::Change(change)
                if matches!(change.command, Command::Bootstrap(_)) && leader != Some(self.me()) =>
            {
                self.pending.remove(&id);
            }
            PendingKind::Change(change)
                if self.takes_changes() || matches!(change.command, Command::Bootstrap(_)) =>
            {
                let (deadline, change) = (pending.deadline, change.clone());
                self.propose(id);
                self.propose_to_host(id, deadline, change, turn);
            }
            PendingKind::Change(change) => match (leader, &pending.origin) {
                (Some(leader), _) if leader == self.me() => self.pause(id, turn.now),
                // It was proposed here once, with an unknown outcome.
                (_, Origin::Peer(..)) if pending.attempts.in_doubt() => {
                    let unknown = self.unknown();
                    self.finish(id, Err(unknown), turn);
                }
                (leader, Origin::Peer(to, header)) => {
                    let (to, request, deadline) = (*to, header.request, header.deadline);
                    self.pending.remove(&id);
                    self.send(to, request, deadline, Message::Redirect { leader }, turn);
                }
                (Some(leader), _) if self.alive(leader) => {
                    let (message, deadline) = (Message::Propose(change.clone()), pending.deadline);
                    let Some(name) = self.forward(id, leader) else {
                        return self.expire(id, turn);
                    };
                    self.send(Self::peer_role(leader), name, deadline, message, turn);
                }
                _ => self.pause(id, turn.now),
            },
            PendingKind::List | PendingKind::Relay(..) if leader.is_some() => {
                let timeout_at = match pending.kind {
                    PendingKind::List => turn.now.instant + LIST_TIMEOUT,
                    _ => pending.answer_by,
                };
                let query = ReadRequest {
                    id,
                    deadline: pending.answer_by.min(timeout_at),
                    level: ReadLevel::Linearizable,
                    query: Bytes::new(),
                };
                self.set(id, Attempt::Reading);
                self.start_read(query, turn);
            }
            PendingKind::List => self.list(id, turn),
            PendingKind::Relay(..) => self.pause(id, turn.now),
        }
    }

    /// Starts an attempt in this server's log.
    fn propose(&mut self, id: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.attempts.begin();
            pending.attempt = Attempt::Proposed;
        }
    }

    /// Starts an attempt at the leader's control role: returns its name. `None` if no attempt is left.
    fn forward(&mut self, id: u64, leader: NodeId) -> Option<u64> {
        let pending = self
            .pending
            .get_mut(&id)
            .filter(|pending| !pending.attempts.are_exhausted())?;
        pending.attempt = Attempt::Forwarded { to: leader };
        Some(attempts::name(id, pending.attempts.begin()))
    }

    pub(super) fn set(&mut self, id: u64, attempt: Attempt) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.attempt = attempt;
        }
    }

    pub(super) fn pause(&mut self, id: u64, now: Now) {
        let retry_at = now.instant + RETRY_PAUSE;
        self.set(id, Attempt::Waiting { retry_at });
    }

    /// The leader has changed: retries requests that wait for a leader, or for the answer of another.
    fn leader_changed(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let leader = self.leader();
        for pending in self.pending.values_mut() {
            match pending.attempt {
                Attempt::Waiting { .. } => pending.attempt = Attempt::Waiting { retry_at: now },
                Attempt::Forwarded { to } if leader.is_some_and(|leader| leader != to) => {
                    pending.attempts.give_up();
                    pending.attempt = Attempt::Waiting { retry_at: now };
                }
                _ => {}
            }
        }
        self.announce_ready(turn);
    }

    pub(super) fn peer_changed(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        if up {
            return self.announce_ready(turn);
        }
        let retry_at = turn.now.instant + RETRY_PAUSE;
        for pending in self.pending.values_mut() {
            if pending.attempt == (Attempt::Forwarded { to: node }) {
                pending.attempts.give_up();
                pending.attempt = Attempt::Waiting { retry_at };
            }
        }
    }

    // ---- results of the group ----

    pub(super) fn proposed(
        &mut self,
        id: u64,
        result: Result<(LogPosition, Answer<Outcome>), ProposeError>,
        turn: &mut Turn<'_>,
    ) {
        let Some(pending) = self
            .pending
            .get_mut(&id)
            .filter(|pending| pending.attempt == Attempt::Proposed)
        else {
            return;
        };
        match &result {
            Ok(_) => pending.attempts.resolved(),
            Err(ProposeError::OutcomeUnknown) => pending.attempts.give_up(),
            Err(ProposeError::NotCommitted | ProposeError::Rejected(_) | ProposeError::Session(_)) => {
                pending.attempts.rejected();
            }
        }
        match result {
            Ok((_, Answer::Done(outcome))) => self.done(id, outcome, turn),
            Ok((_, answer)) => panic!("a command outside of a session was answered {answer:?}"),
            Err(ProposeError::Session(error)) => {
                panic!("a command outside of a session was rejected: {error}")
            }
            Err(ProposeError::NotCommitted | ProposeError::Rejected(Rejection::NotLeader { .. })) => {
                self.pause(id, turn.now);
            }
            Err(ProposeError::OutcomeUnknown) => self.end(id, self.unknown(), turn),
            Err(ProposeError::Rejected(Rejection::Overloaded)) => {
                let error = Error::Overloaded(format!(
                    "{} has too many pending changes of the control plane: retry later",
                    self.me()
                ));
                self.end(id, error, turn);
            }
            Err(ProposeError::Rejected(Rejection::StorageFull)) => {
                let error = Error::StorageFull(format!(
                    "the disk of {}, which leads the control plane, is full and nothing was changed: raise \
                     map_size_bytes in its configuration or free space, then retry",
                    self.me()
                ));
                self.end(id, error, turn);
            }
        }
    }

    // ---- results of other nodes ----

    /// The leader's control role has answered.
    pub(super) fn forwarded(&mut self, name: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let (id, number) = attempts::parse(name);
        let Some(pending) = self
            .pending
            .get_mut(&id)
            .filter(|pending| matches!(pending.kind, PendingKind::Change(_)))
        else {
            return;
        };
        if is_outcome(&result) {
            pending.attempts.resolved();
            return self.finish(id, result, turn);
        }
        // The other attempts were given up: their errors do not affect the outcome.
        if let Err(error) = result
            && pending.attempts.is_open(number)
        {
            pending.attempts.failed(&error);
            match pending.attempts.in_doubt() {
                true => self.pause(id, turn.now),
                false => self.finish(id, Err(error), turn),
            }
        }
    }

    /// It does not lead, and did not propose the change.
    pub(super) fn redirected(&mut self, name: u64, turn: &mut Turn<'_>) {
        let (id, number) = attempts::parse(name);
        if let Some(pending) = self.pending.get_mut(&id)
            && pending.attempts.is_open(number)
        {
            pending.attempts.rejected();
            self.pause(id, turn.now);
        }
    }

    // ---- completion ----

    fn majority(&self) -> (u8, u8) {
        let alive = self.voters().filter(|voter| self.alive(*voter)).count();
        ((self.voters().count() / 2 + 1) as u8, alive as u8)
    }

    fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.configured().ids().take(MAX_VOTERS)
    }

    fn unknown(&self) -> Error {
        Error::OutcomeUnknown {
            acked: 0,
            required: self.majority().0,
            reason: None,
        }
    }

    /// An attempt has failed; another may have a different outcome.
    fn end(&mut self, id: u64, error: Error, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let again = pending.attempts.in_doubt() && pending.answer_by > turn.now.instant;
        match pending.origin {
            Origin::Client(_) | Origin::Own if again => self.pause(id, turn.now),
            _ => self.finish(id, Err(error), turn),
        }
    }

    /// The deadline has passed.
    fn expire(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let (required, alive) = self.majority();
        let voters = self.voters().count();
        let unavailable = Error::no_leader("the control plane", voters, required, alive);
        let result = match (&pending.kind, &pending.attempt) {
            (PendingKind::List, _) => return self.list(id, turn),
            (PendingKind::Relay(..), _) => Err(unavailable),
            (_, Attempt::Serving { outcome, .. }) => outcome.clone().into_response(),
            _ if !pending.attempts.in_doubt() => Err(unavailable),
            _ => Err(self.unknown()),
        };
        self.finish(id, result, turn);
    }

    /// Every answer leaves here; redirects do not.
    pub(super) fn finish(&mut self, id: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        let result = result.map_err(|error| pending.attempts.final_error(error, self.majority().0));
        match pending.origin {
            Origin::Client(client) => reply(client, result, turn),
            Origin::Peer(to, header) => {
                let message = Message::Forwarded(result);
                self.send(to, header.request, header.deadline, message, turn);
            }
            Origin::Own => {}
        }
    }
}

fn reply(client: ClientRef, response: Result<Response, Error>, turn: &mut Turn<'_>) {
    turn.effects.push(Effect::Reply { client, response });
}
