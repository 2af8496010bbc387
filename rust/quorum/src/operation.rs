//! An operation of a coordinator: the parts that writes, reads, scans and forwarded puts have in common.

use quorate_core::attempts::Attempts;
use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::level::Level;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::Response;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, ClientRef, Effect};
use quorate_protocol::telemetry::{Consistency, Measurement, Operation, Span, TraceContext, span_id};

use crate::read::Read;
use crate::scan::Scan;
use crate::write::Write;

/// The recipient of the response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// Another node's coordinator, which has forwarded a client's request.
    Peer(Address, Header),
    /// A request for many keys; this operation is for one of them.
    Many {
        /// The id of that request ([`crate::many`]).
        request: u64,
        /// The index of the key among its keys.
        place: usize,
    },
}

/// The result of one key of a request for many.
#[derive(Debug)]
#[must_use]
pub(super) struct KeyResult {
    pub(super) request: u64,
    pub(super) place: usize,
    pub(super) result: Result<Response, Error>,
}

/// The origin, level, deadline and trace of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestDetails {
    /// `None` after the response (read repair may still be pending), and for internal operations.
    origin: Option<Origin>,
    operation: Operation,
    pub(super) level: Level,
    /// The number of replicas that the level requires.
    pub(super) required: u8,
    pub(super) deadline: Instant,
    /// Of a write: the own replica's attempt, and, if it was rejected, another coordinator's.
    pub(super) attempts: Attempts,
    started: Now,
    /// The caller's trace, if it is sampled.
    parent: Option<TraceContext>,
    /// Our own span in it, the parent of the replicas' spans.
    pub(super) trace: Option<TraceContext>,
}

/// The effect of an event on an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    /// The operation waits for more responses.
    Pending,
    /// Respond and remove the operation.
    Done(Result<Response, Error>),
    /// Respond, but keep the operation.
    Answered(Result<Response, Error>),
    /// Remove the operation; it was answered before.
    Finished,
}

/// An operation in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRequest {
    pub(super) details: RequestDetails,
    pub(super) kind: Kind,
    /// When a read contacts the remaining replicas, and a scan stops waiting for optional nodes.
    pub(super) soft_deadline: Option<Instant>,
    /// The bytes that it keeps in memory after the response.
    pub(super) lingers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Write(Write),
    Read(Read),
    Scan(Scan),
    /// A put that was forwarded to a node that holds a replica.
    Forwarded {
        to: NodeId,
    },
}

impl RequestDetails {
    pub(super) fn new(
        origin: Origin,
        header: &Header,
        operation: Operation,
        (level, required): (Level, u8),
        now: Now,
        rng: &mut Rng,
    ) -> Self {
        let parent = header.trace.filter(|trace| trace.sampled);
        let trace = parent.map(|parent| TraceContext {
            span_id: span_id(rng),
            ..parent
        });
        RequestDetails {
            origin: Some(origin),
            operation,
            level,
            required,
            deadline: header.deadline,
            attempts: Attempts::default(),
            started: now,
            parent,
            trace,
        }
    }

    /// The details of one key's part of this request for many. It has no span of its own: the replicas' spans are
    /// children of this request's.
    pub(super) fn part(&self, request: u64, place: usize, operation: Operation) -> Self {
        RequestDetails {
            origin: Some(Origin::Many { request, place }),
            operation,
            attempts: Attempts::default(),
            parent: None,
            ..self.clone()
        }
    }

    /// An internal operation, without a recipient of the response.
    pub(super) fn own(
        operation: Operation,
        (level, required): (Level, u8),
        deadline: Instant,
        now: Now,
    ) -> Self {
        RequestDetails {
            origin: None,
            operation,
            level,
            required,
            deadline,
            attempts: Attempts::default(),
            started: now,
            parent: None,
            trace: None,
        }
    }

    /// Whether another node's coordinator forwarded it.
    pub(super) fn is_forwarded(&self) -> bool {
        matches!(self.origin, Some(Origin::Peer(..)))
    }

    pub(super) fn is_answered(&self) -> bool {
        self.origin.is_none()
    }

    /// Sends the response, once, with its measurement and span. Every operation that has begun ends here. The caller
    /// passes the returned result to [`Coordinator::finish_key`](crate::coordinator::Coordinator).
    #[must_use]
    pub(super) fn respond(
        &mut self,
        result: Result<Response, Error>,
        node: NodeId,
        keyspace: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<KeyResult> {
        let origin = self.origin.take()?;
        let result = result.map_err(|error| self.attempts.final_error(error, self.required));
        self.end_span(result.as_ref().err(), node, keyspace, now, effects);
        if matches!(origin, Origin::Client(_)) {
            effects.push(Effect::Measure(Measurement {
                operation: self.operation,
                consistency: Consistency::Level(self.level),
                outcome: result.as_ref().err().map_or("ok", Error::name).to_owned(),
                micros: now.instant.0 - self.started.instant.0,
                siblings: siblings(&result),
            }));
        }
        reply(origin, result, effects)
    }

    fn end_span(
        &self,
        error: Option<&Error>,
        node: NodeId,
        keyspace: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(parent), Some(own)) = (self.parent, self.trace) else {
            return;
        };
        let span = Span {
            trace_id: own.trace_id,
            span_id: own.span_id,
            parent_id: parent.span_id,
            name: format!("quorum.{}", self.operation.name()),
            node: Some(node),
            start: self.started.wall,
            end: now.wall,
            attributes: Vec::new(),
            error: None,
        };
        let span = span
            .with("db.system.name", "quorate")
            .with("db.namespace", keyspace)
            .with("quorate.consistency", self.level)
            .with("quorate.required", self.required)
            .failed(error);
        effects.push(Effect::Span(Box::new(span)));
    }
}

/// Sends a response to its recipient.
#[must_use]
pub(super) fn reply(
    origin: Origin,
    response: Result<Response, Error>,
    effects: &mut Vec<Effect>,
) -> Option<KeyResult> {
    effects.push(match origin {
        Origin::Client(client) => Effect::Reply { client, response },
        Origin::Peer(to, header) => Effect::Send {
            to,
            header,
            message: Message::Forwarded(response),
        },
        Origin::Many { request, place } => {
            return Some(KeyResult {
                request,
                place,
                result: response,
            });
        }
    });
    None
}

fn siblings(result: &Result<Response, Error>) -> u32 {
    match result {
        Ok(Response::Entry(entry)) => entry.versions.len() as u32,
        Ok(Response::Entries(entries)) => {
            let found = entries.iter().flatten().map(|entry| entry.versions.len());
            found.max().unwrap_or(0) as u32
        }
        _ => 0,
    }
}
