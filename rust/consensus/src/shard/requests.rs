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
use crate::shard::pending::{Gathered, Origin, PendingRequest};
use crate::shard::server::Server;
use crate::turn::Turn;

/// An answer is given so long before its deadline, or an eighth of the time if that is less: it takes time, too.
const MARGIN: Duration = Duration::from_millis(50);

/// Hands a client's request to the forwarder of this node.
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

/// Tells a forwarder to ask elsewhere: nothing was done here.
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

    /// A forwarder takes this server for the leader.
    pub(super) fn forwarded(&mut self, from: Address, header: Header, request: Request, turn: &mut Turn<'_>) {
        self.begin(Origin::Forwarder(from), header, request, turn);
    }

    fn begin(&mut self, origin: Origin, header: Header, request: Request, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let left = header.deadline.since(now);
        let deadline = header.deadline - MARGIN.min(left / 8);
        self.last_ask += 1;
        let id = self.last_ask;
        let logged = log_request(&request);
        let level = request.read_level();
        let started = turn.now;
        let ask = PendingRequest {
            origin,
            header,
            request,
            started,
            attempts: Attempts::default(),
        };
        self.pending.insert(id, ask);
        match (logged, level) {
            (Err(error), _) => self.finish(id, Err(error), turn),
            (Ok(Some(_)), _) if !self.host.raft().is_leader() => {
                self.turn_away(id, self.host.raft().leader(), turn)
            }
            (Ok(Some(request)), _) => self.gather(id, deadline, request, turn),
            (Ok(None), Some(level)) => self.ask_to_read(id, deadline, level, turn),
            (Ok(None), None) => {
                let error = Error::invalid("a shard does not answer this request");
                self.finish(id, Err(error), turn);
            }
        }
    }

    // ---- commands ----

    /// Commands that come in one turn go into the log, to the disk and to the followers together.
    fn gather(&mut self, id: u64, deadline: Instant, request: LogRequest<Command>, turn: &mut Turn<'_>) {
        if self.gathered.is_empty() {
            turn.push(Effect::EndTurn);
        }
        self.gathered.push(Gathered {
            id,
            deadline,
            request,
        });
    }

    pub(super) fn propose_gathered(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let (gathered, late): (Vec<_>, Vec<_>) = std::mem::take(&mut self.gathered)
            .into_iter()
            .partition(|gathered| gathered.deadline > now.instant);
        for late in late {
            let error = self.unavailable();
            self.finish(late.id, Err(error), turn);
        }
        if gathered.is_empty() {
            return;
        }
        let ids: Vec<u64> = gathered.iter().map(|gathered| gathered.id).collect();
        match self.host.propose(gathered, turn) {
            Ok(()) => {
                for id in ids {
                    if let Some(ask) = self.pending.get_mut(&id) {
                        ask.attempts.begin();
                    }
                }
            }
            Err(refusal) => {
                for id in ids {
                    self.proposed(id, Err(ProposeError::Rejected(refusal)), turn);
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
        if let Some(ask) = self.pending.get_mut(&id) {
            match &result {
                Err(ProposeError::OutcomeUnknown) => ask.attempts.give_up(),
                // It was executed, or certainly not.
                _ => ask.attempts.settled(),
            }
        }
        let answer = match result {
            Ok((_, Answer::Done(outcome))) => self.executed(id, outcome),
            Ok((_, Answer::Opened(session))) => Ok(Response::SessionOpened {
                session: session.0,
                leader: self.leader_or_me(),
            }),
            Ok((_, Answer::Closed)) => Ok(Response::Done),
            // Not executed now; whether it was before, the session cannot tell.
            Err(ProposeError::Session(error @ (SessionError::Expired | SessionError::Forgotten))) => {
                Err(Error::SessionExpired(error.to_string()))
            }
            Err(ProposeError::NotCommitted) => return self.turn_away(id, self.host.raft().leader(), turn),
            Err(ProposeError::Rejected(Rejection::NotLeader { leader })) => {
                return self.turn_away(id, leader, turn);
            }
            Err(ProposeError::OutcomeUnknown) => Err(self.unknown(None)),
            Err(ProposeError::Rejected(Rejection::Overloaded)) => Err(Error::Overloaded(format!(
                "{} has too much under way in group {}: nothing was written; try again later",
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
                let key = match self.pending.get(&id).map(|ask| &ask.request) {
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

    fn ask_to_read(&mut self, id: u64, deadline: Instant, level: ReadLevel, turn: &mut Turn<'_>) {
        let question = ReadRequest {
            id,
            deadline,
            level,
            query: bytes::Bytes::new(),
        };
        match level {
            ReadLevel::Stale => self.host.ask_stale(question),
            ReadLevel::Linearizable => self.host.ask(question, turn),
        }
    }

    /// A read that cannot be answered here.
    pub(super) fn not_read(&mut self, id: u64, error: QueryError, turn: &mut Turn<'_>) {
        match error {
            QueryError::NotLeader { leader } => self.turn_away(id, leader, turn),
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

    // ---- leaders come and go ----

    /// Somebody else leads, or nobody, or this server.
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
        // Whoever can ask again does it sooner than this server learns what has become of an entry of its.
        let proposed = self.pending.iter().filter(|(_, ask)| {
            let logged = !ask.request.is_read();
            logged && ask.request.is_repeatable()
        });
        let waiting: Vec<u64> = self.gathered.iter().map(|gathered| gathered.id).collect();
        let ids: Vec<u64> = proposed
            .map(|(id, _)| *id)
            .filter(|id| !waiting.contains(id))
            .collect();
        for id in ids {
            let error = self.unknown(Some("the leader was deposed".to_owned()));
            self.finish(id, Err(error), turn);
        }
    }

    // ---- the end ----

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
            "{} did not come to this request of group {} in time: nothing was written; try again later",
            self.me, self.group
        ))
    }

    /// It has not been done and will not be, here.
    fn turn_away(&mut self, id: u64, leader: Option<NodeId>, turn: &mut Turn<'_>) {
        let Some(ask) = self.pending.remove(&id) else {
            return;
        };
        assert!(
            !ask.attempts.in_doubt(),
            "what is in the log may be executed here"
        );
        match ask.origin {
            Origin::Client(client) => relay(self.home.keyspace, client, ask.header, ask.request, turn),
            Origin::Forwarder(forwarder) => redirect(forwarder, ask.header, leader, turn),
        }
    }

    /// This server can do no more: what it was asked to write may have been written, reads are for others.
    pub(super) fn turn_all_away(&mut self, why: &str, turn: &mut Turn<'_>) {
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let read = self.pending.get(&id).is_some_and(|ask| ask.request.is_read());
            match read {
                true => self.turn_away(id, None, turn),
                false => {
                    let error = self.unknown(Some(format!("{}: {why}", self.me)));
                    self.finish(id, Err(error), turn);
                }
            }
        }
    }

    /// The keyspace was dropped: what is in the log may be committed elsewhere, everything else was not done and will not be.
    pub(super) fn drop_all(&mut self, keyspace: &Keyspace, turn: &mut Turn<'_>) {
        let gathered: Vec<u64> = self.gathered.drain(..).map(|gathered| gathered.id).collect();
        for (id, read) in self
            .pending
            .iter()
            .map(|(id, ask)| (*id, ask.request.is_read()))
            .collect::<Vec<_>>()
        {
            let error = match read || gathered.contains(&id) {
                true => keyspace.no_longer_there(),
                false => self.unknown(Some(keyspace.was_dropped())),
            };
            self.finish(id, Err(error), turn);
        }
    }

    /// The only way out, but for those who are sent elsewhere.
    pub(super) fn finish(&mut self, id: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(ask) = self.pending.remove(&id) else {
            return;
        };
        let result = result.map_err(|error| ask.attempts.last_word(error, self.majority()));
        ask.tell(self.me, &result, turn);
        turn.effects.extend(measure(
            &ask.request,
            ask.started.instant,
            turn.now.instant,
            &result,
        ));
        match ask.origin {
            Origin::Client(client) => turn.push(Effect::Reply {
                client,
                response: result,
            }),
            Origin::Forwarder(to) => turn.push(Effect::Send {
                to,
                header: ask.header,
                message: Message::Forwarded(result),
            }),
        }
    }
}
