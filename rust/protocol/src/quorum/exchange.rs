//! What every request of a coordinator has, whichever kind it is.

use crate::api::{Request, Response};
use crate::error::Error;
use crate::ids::NodeId;
use crate::level::Level;
use crate::message::{Header, Message};
use crate::quorum::read::Read;
use crate::quorum::scan::Scan;
use crate::quorum::write::Write;
use crate::role::{Address, ClientRef, Effect, Rng};
use crate::telemetry::{Measurement, Operation, Span, TraceContext, span_id};
use crate::time::{Instant, Now};

/// Who is waiting for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    Client(ClientRef),
    /// Another node's coordinator, which has forwarded a client's request.
    Peer(Address, Header),
}

/// A request in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Exchange {
    /// `None` once answered (read repair may go on after that).
    pub(super) origin: Option<Origin>,
    pub(super) operation: Operation,
    pub(super) level: Level,
    pub(super) required: u8,
    pub(super) deadline: Instant,
    pub(super) started: Now,
    /// The caller's trace.
    pub(super) parent: Option<TraceContext>,
    /// Our own span in it, the parent of what others do for us.
    pub(super) trace: Option<TraceContext>,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Write(Write),
    Read(Read),
    Scan(Scan),
    /// Handed to a node that holds a replica.
    Forwarded {
        to: NodeId,
    },
}

/// What handling an event made of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    /// It goes on.
    Waiting,
    /// Answer, and forget it.
    Done(Result<Response, Error>),
    /// Answer, but go on.
    Answered(Result<Response, Error>),
    /// Nothing left to do; it was answered before.
    Over,
}

impl Exchange {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        origin: Origin,
        operation: Operation,
        level: Level,
        required: u8,
        header: &Header,
        now: Now,
        rng: &mut Rng,
        kind: Kind,
    ) -> Self {
        let own = |parent: TraceContext| TraceContext {
            span_id: span_id(rng),
            ..parent
        };
        let parent = header.trace.filter(|trace| trace.sampled);
        Exchange {
            origin: Some(origin),
            operation,
            level,
            required,
            deadline: header.deadline,
            started: now,
            parent,
            trace: parent.map(own),
            kind,
        }
    }

    /// Sends the answer, once, with its measurement and span.
    pub(super) fn answer(
        &mut self,
        result: Result<Response, Error>,
        node: NodeId,
        keyspace: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(origin) = self.origin.take() else { return };
        if let (Some(parent), Some(own)) = (self.parent, self.trace) {
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
                .failed(result.as_ref().err());
            effects.push(Effect::Span(Box::new(span)));
        }
        match origin {
            Origin::Client(client) => {
                effects.push(Effect::Measure(Measurement {
                    operation: self.operation,
                    level: self.level,
                    outcome: result.as_ref().err().map_or("ok", Error::name).to_owned(),
                    micros: now.instant.0 - self.started.instant.0,
                    siblings: siblings(&result),
                }));
                effects.push(Effect::Reply {
                    client,
                    response: result,
                });
            }
            Origin::Peer(to, header) => {
                effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Forwarded(result),
                });
            }
        }
    }
}

fn siblings(result: &Result<Response, Error>) -> u32 {
    match result {
        Ok(Response::Entry(entry)) => entry.versions.len() as u32,
        _ => 0,
    }
}

/// What a request asks, as the metrics name it; `None` for one that is not a coordinator's.
pub(super) fn operation_of(request: &Request) -> Option<Operation> {
    match request {
        Request::Put { value: Some(_), .. } => Some(Operation::Put),
        Request::Put { value: None, .. } => Some(Operation::Delete),
        Request::Get { .. } => Some(Operation::Get),
        Request::Scan { .. } => Some(Operation::Scan),
        _ => None,
    }
}
