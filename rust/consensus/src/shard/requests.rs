//! Requests, from arrival to answer.

use std::time::Duration;

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Committed, Request, Response};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, ClientRef, Effect, RoleId};
use quorate_protocol::shard_command::{Command, Outcome};
use quorate_raft::event::{ProposeError, QueryError, ReadLevel, ReadRequest};
use quorate_raft::server::Rejection;
use quorate_raft::sessions::{Answer, Request as LogRequest, SessionError};
use quorate_raft::types::LogPosition;

use crate::shard::kind::{log_request, measure};
use crate::shard::pending::{Origin, PendingRequest, QueuedCommand};
use crate::shard::server::Server;
use crate::turn::Turn;

/// The answer is sent this long before its deadline, or an eighth of the time if that is less: it takes time,
/// too.
const DEADLINE_MARGIN: Duration = Duration::from_millis(50);

/// Passes a client's request to this node's forwarder.
pub(super) fn relay(
    keyspace: KeyspaceId,
    client: ClientRef,
    header: Header,
    request: Request,
    turn: &mut Turn<'_>,
) {
    turn.push(Effect::Relay {
        to: RoleId::Forwarder(keyspace),
        client,
        header,
        request,
    });
}

/// Redirects a forwarder: nothing was executed here.
pub(super) fn redirect(to: Address, header: Header, leader: Option<NodeId>, turn: &mut Turn<'_>) {
    turn.push(Effect::Send {
        to,
        header,
        message: Message::Redirect { leader },
    });
}

impl Server {
    pub(super) fn request(
        &mut self,
        client: ClientRef,
        header: Header,
        request: Request,
        turn: &mut Turn<'_>,
    ) {
        self.begin(Origin::Client(client), header, request, turn);
    }

    /// A forwarder has sent a request: it takes this server for the leader.
    pub(super) fn forwarded(&mut self, from: Address, header: Header, request: Request, turn: &mut Turn<'_>) {
        self.begin(Origin::Forwarder(from), header, request, turn);
    }

    fn begin(&mut self, origin: Origin, header: Header, request: Request, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let left = header.deadline.since(now);
        let deadline = header.deadline - DEADLINE_MARGIN.min(left / 8);
        self.last_request += 1;
        let id = self.last_request;
        let logged = log_request(&request);
        let level = request.read_level();
        let started = turn.now;
        let pending = PendingRequest {
            origin,
            header,
            request,
            started,
            attempts: Attempts::default(),
        };
        self.pending.insert(id, pending);
        match (logged, level) {
            (Err(error), _) => self.finish(id, Err(error), turn),
            (Ok(Some(_)), _) if !self.host.raft().is_leader() => {
                self.reject(id, self.host.raft().leader(), turn)
            }
            (Ok(Some(request)), _) => self.enqueue(id, deadline, request, turn),
            (Ok(None), Some(level)) => self.start_read(id, deadline, level, turn),
            (Ok(None), None) => {
                let error = Error::invalid("a shard does not support this request");
                self.finish(id, Err(error), turn);
            }
        }
    }

    // ---- commands ----

    /// Commands of one turn go into the log, to the disk and to the followers together.
    fn enqueue(&mut self, id: u64, deadline: Instant, request: LogRequest<Command>, turn: &mut Turn<'_>) {
        if self.queued.is_empty() {
            turn.push(Effect::EndTurn);
        }
        self.queued.push(QueuedCommand {
            id,
            deadline,
            request,
        });
    }

    pub(super) fn propose_queued(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let (queued, late): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queued)
            .into_iter()
            .partition(|queued| queued.deadline > now.instant);
        for late in late {
            let error = self.unavailable();
            self.finish(late.id, Err(error), turn);
        }
        if queued.is_empty() {
            return;
        }
        let ids: Vec<u64> = queued.iter().map(|queued| queued.id).collect();
        match self.host.propose(queued, turn) {
            Ok(()) => {
                for id in ids {
                    if let Some(pending) = self.pending.get_mut(&id) {
                        pending.attempts.begin();
                    }
                }
            }
            Err(rejection) => {
                for id in ids {
                    self.proposed(id, Err(ProposeError::Rejected(rejection)), turn);
                }
            }
        }
    }

    pub(super) fn proposed(
        &mut self,
        id: u64,
        result: Result<(LogPosition, Answer<Outcome>), ProposeError>,
        turn: &mut Turn<'_>,
    ) {
        if let Some(pending) = self.pending.get_mut(&id) {
            match &result {
                Err(ProposeError::OutcomeUnknown) => pending.attempts.give_up(),
                // It was executed, or certainly not.
                _ => pending.attempts.resolved(),
            }
        }
        let answer = match result {
            Ok((_, Answer::Done(outcome))) => self.executed(id, outcome),
            Ok((_, Answer::Opened(session))) => Ok(Response::SessionOpened {
                session: session.0,
                leader: self.leader_or_me(),
            }),
            Ok((_, Answer::Closed)) => Ok(Response::Done),
            // Not executed now; whether it was before, the session does not record.
            Err(ProposeError::Session(error @ (SessionError::Expired | SessionError::Forgotten))) => {
                Err(Error::SessionExpired(error.to_string()))
            }
            Err(ProposeError::NotCommitted) => return self.reject(id, self.host.raft().leader(), turn),
            Err(ProposeError::Rejected(Rejection::NotLeader { leader })) => {
                return self.reject(id, leader, turn);
            }
            Err(ProposeError::OutcomeUnknown) => Err(self.unknown(None)),
            Err(ProposeError::Rejected(Rejection::Overloaded)) => Err(Error::Overloaded(format!(
                "{} has too many pending commands in group {}: nothing was written; retry later",
                self.me, self.group
            ))),
            Err(ProposeError::Rejected(Rejection::StorageFull)) => Err(Error::StorageFull(format!(
                "the disk of {}, which leads group {}, is full and nothing was written: raise map_size_bytes in its \
                 configuration or free space, then retry",
                self.me, self.group
            ))),
        };
        self.finish(id, answer, turn);
    }

    fn executed(&self, id: u64, outcome: Outcome) -> Result<Response, Error> {
        match outcome {
            Outcome::Done { index, term } => Ok(Response::Committed(Committed {
                index,
                term,
                leader: self.leader_or_me(),
            })),
            Outcome::ConditionFailed { write, current } => {
                let key = match self.pending.get(&id).map(|pending| &pending.request) {
                    Some(Request::Propose {
                        command: Command::Write(writes),
                        ..
                    }) => writes.get(write as usize).map(|write| write.key.to_string()),
                    _ => None,
                };
                Err(Error::ConditionFailed {
                    key: key.unwrap_or_default(),
                    current,
                })
            }
        }
    }

    fn leader_or_me(&self) -> NodeId {
        self.host.raft().leader().unwrap_or(self.me)
    }

    // ---- reads ----

    fn start_read(&mut self, id: u64, deadline: Instant, level: ReadLevel, turn: &mut Turn<'_>) {
        let read = ReadRequest {
            id,
            deadline,
            level,
            query: bytes::Bytes::new(),
        };
        match level {
            ReadLevel::Stale => self.host.read_stale(read),
            ReadLevel::Linearizable => self.host.read(read, turn),
        }
    }

    /// A read that cannot be answered here.
    pub(super) fn not_read(&mut self, id: u64, error: QueryError, turn: &mut Turn<'_>) {
        match error {
            QueryError::NotLeader { leader } => self.reject(id, leader, turn),
            QueryError::TimedOut => {
                let required = self.majority();
                let error = Error::ReadTimeout {
                    answered: 0,
                    required,
                };
                self.finish(id, Err(error), turn);
            }
        }
    }

    // ---- leader changes ----

    /// The leader has changed.
    pub(super) fn leader_changed(&mut self, turn: &mut Turn<'_>) {
        let leader = self.host.raft().leader();
        let forwarder = Address {
            node: self.me,
            role: RoleId::Forwarder(self.home.keyspace),
        };
        let header = Header {
            generation: 0,
            request: 0,
            deadline: Instant::NEVER,
            trace: None,
        };
        redirect(forwarder, header, leader, turn);
        if self.host.raft().is_leader() {
            return;
        }
        // A client that can retry does so sooner than this server learns the outcome of its entry.
        let proposed = self.pending.iter().filter(|(_, pending)| {
            let logged = !pending.request.is_read();
            logged && pending.request.is_repeatable()
        });
        let waiting: Vec<u64> = self.queued.iter().map(|queued| queued.id).collect();
        let ids: Vec<u64> = proposed
            .map(|(id, _)| *id)
            .filter(|id| !waiting.contains(id))
            .collect();
        for id in ids {
            let error = self.unknown(Some("the leader was deposed".to_owned()));
            self.finish(id, Err(error), turn);
        }
    }

    // ---- completion ----

    fn majority(&self) -> u8 {
        (self.home.voters / 2 + 1) as u8
    }

    fn unknown(&self, reason: Option<String>) -> Error {
        Error::OutcomeUnknown {
            acked: 1,
            required: self.majority(),
            reason,
        }
    }

    fn unavailable(&self) -> Error {
        Error::Overloaded(format!(
            "{} did not process this request of group {} before its deadline: nothing was written; retry later",
            self.me, self.group
        ))
    }

    /// Rejects a request: it was not executed and will not be, here.
    fn reject(&mut self, id: u64, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        assert!(
            !pending.attempts.in_doubt(),
            "a command in the log may be executed here"
        );
        match pending.origin {
            Origin::Client(client) => {
                relay(self.home.keyspace, client, pending.header, pending.request, turn)
            }
            Origin::Forwarder(forwarder) => redirect(forwarder, pending.header, leader, turn),
        }
    }

    /// The server stops: writes may have been executed; other servers can answer reads.
    pub(super) fn reject_all(&mut self, why: &str, turn: &mut Turn<'_>) {
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let read = self
                .pending
                .get(&id)
                .is_some_and(|pending| pending.request.is_read());
            match read {
                true => self.reject(id, None, turn),
                false => {
                    let error = self.unknown(Some(format!("{}: {why}", self.me)));
                    self.finish(id, Err(error), turn);
                }
            }
        }
    }

    /// The keyspace was dropped: commands in the log may be committed elsewhere, other requests were not
    /// executed and will not be.
    pub(super) fn drop_all(&mut self, keyspace: &Keyspace, turn: &mut Turn<'_>) {
        let queued: Vec<u64> = self.queued.drain(..).map(|queued| queued.id).collect();
        for (id, read) in self
            .pending
            .iter()
            .map(|(id, pending)| (*id, pending.request.is_read()))
            .collect::<Vec<_>>()
        {
            let error = match read || queued.contains(&id) {
                true => keyspace.dropped_error(),
                false => self.unknown(Some(keyspace.dropped_reason())),
            };
            self.finish(id, Err(error), turn);
        }
    }

    /// Every answer leaves here; redirects do not.
    pub(super) fn finish(&mut self, id: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        let result = result.map_err(|error| pending.attempts.final_error(error, self.majority()));
        pending.record_span(self.me, &result, turn);
        turn.effects.extend(measure(
            &pending.request,
            pending.started.instant,
            turn.now.instant,
            &result,
        ));
        match pending.origin {
            Origin::Client(client) => turn.push(Effect::Reply {
                client,
                response: result,
            }),
            Origin::Forwarder(to) => turn.push(Effect::Send {
                to,
                header: pending.header,
                message: Message::Forwarded(result),
            }),
        }
    }
}
