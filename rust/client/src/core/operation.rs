//! One operation, from its submission to its outcome, and what an error means for it.

use std::time::Duration;

use quorate_core::attempts::Attempts;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, WallTime};
use quorate_protocol::api::request::Class;
use quorate_protocol::api::{ReadLevel, Request, Response};
use quorate_protocol::telemetry::{Span, TraceContext};
use quorate_raft::types::GroupId;

use super::{CallOptions, GRACE};

/// After this many attempts the last definite error is the answer.
const MAX_ATTEMPTS: u8 = 6;
/// The same for requests to a Raft group: between two leaders there may be many.
const MAX_GROUP_ATTEMPTS: u8 = 64;
/// The backoff before the retry of a request to a Raft group with unknown outcome; it doubles with each attempt.
const GROUP_BACKOFF: Duration = Duration::from_millis(10);
/// The number of attempts after which it stops doubling.
const GROUP_DOUBLINGS: u8 = 4;
/// The backoff before an operation rejected as overloaded is retried on another node; it doubles with each attempt.
const OVERLOAD_BACKOFF: Duration = Duration::from_millis(5);
/// The backoff before a request about a keyspace that a node does not know yet is retried on another node.
const UNKNOWN_KEYSPACE_BACKOFF: Duration = Duration::from_millis(20);

/// How an operation without a response may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Changes nothing: retried on another node.
    Read,
    /// Idempotent: retried on another node; at the deadline its outcome is unknown.
    Idempotent,
    /// Not retried: its outcome is unknown.
    Write,
}

impl Kind {
    pub(super) fn of(request: &Request) -> Kind {
        match request.class() {
            Class::Read => Kind::Read,
            // A command is always sent in a session.
            _ if request.is_repeatable() || request.group().is_some() => Kind::Idempotent,
            Class::Write | Class::Admin => Kind::Write,
        }
    }
}

/// The error of a request that may have been sent, and whose response will not be received.
pub fn unanswered(request: &Request, why: &str) -> Error {
    match !request.is_read() {
        true => Error::OutcomeUnknown {
            acked: 0,
            required: 1,
            reason: Some(why.to_owned()),
        },
        false => Error::Closed(format!("{why}: connect again")),
    }
}

/// The stage of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Pending: no node is reachable for it, since this time.
    Waiting { since: Instant },
    /// Pending: retried when its timer fires.
    Backoff,
    /// Pending: waits for a sequence number in its group's session.
    Queued,
    /// Sent on this connection; its frame ends at this byte of the connection's output.
    Sent { connection: u64, end: u64 },
}

/// The span of a sampled operation, until it is finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Draft {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) parent_id: u64,
    pub(super) start: WallTime,
}

impl Draft {
    /// The trace context of the request.
    pub(super) fn context(&self) -> TraceContext {
        TraceContext {
            trace_id: self.trace_id,
            span_id: self.span_id,
            sampled: true,
        }
    }

    /// The finished span of an operation on a keyspace, if it is on one. `more`: further attributes.
    pub(super) fn span(
        &self,
        end: WallTime,
        (operation, collection): (&str, Option<&str>),
        more: Vec<(String, String)>,
        error: Option<&Error>,
    ) -> Span {
        let mut attributes = vec![
            ("db.system.name".to_owned(), "quorate".to_owned()),
            ("db.operation.name".to_owned(), operation.to_owned()),
        ];
        if let Some(collection) = collection {
            attributes.push(("db.collection.name".to_owned(), collection.to_owned()));
        }
        attributes.extend(more);
        Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_id: self.parent_id,
            name: match collection {
                Some(collection) => format!("{operation} {collection}"),
                None => operation.to_owned(),
            },
            node: None,
            start: self.start,
            end: end.max(self.start),
            attributes,
            error: error.map(|error| error.name().to_owned()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Operation {
    pub(super) request: Request,
    pub(super) kind: Kind,
    /// The Raft group that it is for.
    pub(super) group: Option<GroupId>,
    /// Its session and sequence number, if it is a command that has them.
    pub(super) ticket: Option<Ticket>,
    pub(super) target: Option<NodeId>,
    pub(super) submitted: Instant,
    pub(super) deadline: Instant,
    /// Its entry in the timers.
    pub(super) timer: Instant,
    pub(super) stage: Stage,
    /// Of its key and value; 0 for a part of an operation on many keys, which has them.
    pub(super) bytes: usize,
    /// Its attempts, and what is known of their outcomes.
    pub(super) attempts: Attempts,
    /// The nodes that rejected it, or whose connection was lost with it, in this round.
    pub(super) tried: Vec<NodeId>,
    /// The definite error of the last attempt.
    pub(super) last_error: Option<Error>,
    pub(super) draft: Option<Draft>,
}

/// A command's place in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket {
    pub(super) session: u64,
    pub(super) sequence: u64,
}

/// What follows from an error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// It is the outcome.
    Final,
    /// Nothing was written; retry on another node after this backoff (before jitter).
    Elsewhere { after: Duration },
}

impl Operation {
    /// An operation that has not been sent, with `bytes` 0.
    pub(super) fn new(request: Request, options: CallOptions, now: Instant, draft: Option<Draft>) -> Self {
        let deadline = now + options.timeout;
        Operation {
            kind: Kind::of(&request),
            group: request.group(),
            ticket: None,
            request,
            target: options.node,
            submitted: now,
            deadline,
            timer: deadline + GRACE,
            stage: Stage::Backoff,
            bytes: 0,
            attempts: Attempts::default(),
            tried: Vec::new(),
            last_error: None,
            draft,
        }
    }

    /// What follows from `error`, a node's response to the latest attempt. `keyspace_exists`: some node has reported
    /// the keyspace. `another_replica`: a replica that was not tried is reachable.
    pub(super) fn disposition(
        &self,
        error: &Error,
        keyspace_exists: bool,
        another_replica: bool,
    ) -> Disposition {
        let most = match self.group {
            Some(_) => MAX_GROUP_ATTEMPTS,
            None => MAX_ATTEMPTS,
        };
        let attempts = self.sent();
        if self.target.is_some() && !matches!(error, Error::Overloaded(_)) || attempts >= most {
            return Disposition::Final;
        }
        match error {
            Error::Overloaded(_) => Disposition::Elsewhere {
                after: OVERLOAD_BACKOFF * (1 << u32::from(attempts.min(MAX_ATTEMPTS))),
            },
            // The next leader knows its outcome, or executes it.
            Error::OutcomeUnknown { .. } if self.group.is_some() && self.kind == Kind::Idempotent => {
                Disposition::Elsewhere {
                    after: GROUP_BACKOFF * (1 << u32::from(attempts.min(GROUP_DOUBLINGS))),
                }
            }
            Error::Closed(_) | Error::ConnectionLost(_) | Error::ConnectionRefused(_) => {
                Disposition::Elsewhere {
                    after: if attempts == 1 {
                        Duration::ZERO
                    } else {
                        UNKNOWN_KEYSPACE_BACKOFF
                    },
                }
            }
            // The coordinator itself may be partitioned. One retry only, to fail fast.
            Error::Unavailable { .. } if another_replica && (attempts == 1 || self.group.is_some()) => {
                Disposition::Elsewhere {
                    after: Duration::ZERO,
                }
            }
            Error::NotFound(_) if keyspace_exists => Disposition::Elsewhere {
                after: UNKNOWN_KEYSPACE_BACKOFF,
            },
            _ => Disposition::Final,
        }
    }

    /// The number of attempts.
    pub(super) fn sent(&self) -> u8 {
        u8::try_from(self.attempts.count()).unwrap_or(u8::MAX)
    }

    /// The response, or an error if its type does not fit the request.
    pub(super) fn checked(&self, answer: Result<Response, Error>) -> Result<Result<Response, Error>, Error> {
        match answer {
            Ok(response) if !self.request.is_answered_by(&response) => Err(Error::Refused(
                "unexpected response type: not a Quorate node, or an incompatible version".to_owned(),
            )),
            answer => Ok(answer),
        }
    }

    /// Whether a response determines the outcome of the operation, whichever attempt was executed. Others concern one attempt.
    pub(super) fn is_outcome(&self, answer: &Result<Response, Error>) -> bool {
        let error = match answer {
            Ok(_) => return true,
            Err(error) => error,
        };
        match self.request {
            // All attempts are one command of one session.
            Request::Propose { .. } => matches!(error, Error::ConditionFailed { .. }),
            // All attempts have one name. (Those at a creation have none.)
            Request::AlterKeyspace { .. } | Request::DropKeyspace { .. } => matches!(
                error,
                Error::InvalidArgument(_) | Error::NotFound(_) | Error::KeyspaceExists(_)
            ),
            _ => false,
        }
    }

    /// The result that the application gets.
    pub(super) fn conclude(&self, result: Result<Response, Error>, required: u8) -> Result<Response, Error> {
        match self.kind {
            Kind::Read => result,
            Kind::Idempotent | Kind::Write => {
                result.map_err(|error| self.attempts.final_error(error, required))
            }
        }
    }

    /// The error of an operation that will not get a response, because of `cause`, or because its deadline has passed.
    /// It required `required` replicas; `unreachable` names the nodes that are not reachable.
    pub(super) fn verdict(
        &self,
        required: u8,
        cause: Option<String>,
        unreachable: impl FnOnce() -> Error,
    ) -> Error {
        match self.kind {
            Kind::Write | Kind::Idempotent if self.attempts.in_doubt() => Error::OutcomeUnknown {
                acked: 0,
                required,
                reason: cause,
            },
            Kind::Read if self.attempts.in_doubt() => Error::ReadTimeout {
                answered: 0,
                required,
            },
            _ => self.last_error.clone().unwrap_or_else(unreachable),
        }
    }

    /// The finished span, if the operation is sampled.
    pub(super) fn span(
        &self,
        end: WallTime,
        collection: Option<&str>,
        error: Option<&Error>,
    ) -> Option<Span> {
        let draft = self.draft.as_ref()?;
        let mut attributes = Vec::new();
        if let Some(level) = self.request.level() {
            attributes.push(("quorate.consistency".to_owned(), level.to_string()));
        }
        if let Some(level) = self.request.read_level() {
            let name = match level {
                ReadLevel::Linearizable => "linearizable",
                ReadLevel::Stale => "stale",
            };
            attributes.push(("quorate.consistency".to_owned(), name.to_owned()));
        }
        if let Some(group) = self.group {
            attributes.push(("quorate.group".to_owned(), group.to_string()));
        }
        attributes.push(("quorate.attempts".to_owned(), self.sent().to_string()));
        if let Some(error) = error {
            attributes.push(("error.type".to_owned(), error.name().to_owned()));
        }
        Some(draft.span(
            end,
            (self.request.operation_name(), collection),
            attributes,
            error,
        ))
    }
}
