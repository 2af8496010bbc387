//! Spans of the RPCs of a traced request, at both ends.
//!
//! ```text
//!  coordinator's node                                   replica's node
//!  quorum.put ─┬─ peer.store (to n2) ─────────────────── replica.store ─── storage.commit
//!              │  queue, network, all that n2 does,      from arrival to
//!              │  and the way back                       the answer's leaving
//! ```
//! Roles know no network, so the shell records these spans: when it sends or receives a sampled request, it puts its own span into the header,
//! as the parent of what follows, and ends the span with the response, which carries the same header
//! back. The role sees the original header. A message that is not sampled costs one check of its header.
//!
//! A span without a response ends at its deadline, as an error. The number of open spans is bounded; further ones are not
//! recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, WallTime};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::telemetry::{Span, TraceContext};

use crate::clock::Clock;
use crate::telemetry::Telemetry;

/// The most open spans.
const MAX_OPEN_SPANS: usize = 8_192;

/// An open span, by its span id.
struct OpenSpan {
    /// The original trace context of the header.
    parent: TraceContext,
    name: &'static str,
    peer: NodeId,
    started: WallTime,
    deadline: Instant,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, OpenSpan>,
    by_deadline: BTreeSet<(Instant, u64)>,
}

/// The RPC spans of one node, in both directions.
pub struct RpcSpans {
    node: NodeId,
    clock: Arc<Clock>,
    telemetry: Arc<Telemetry>,
    table: Mutex<Table>,
}

/// The part of a message in an RPC.
enum Rpc {
    /// Begins a span: its name at the sender and at the receiver.
    Request(&'static str, &'static str),
    Response,
    Neither,
}

fn rpc(message: &Message) -> Rpc {
    match message {
        Message::Store { .. } => Rpc::Request("peer.store", "replica.store"),
        Message::Heal { .. } => Rpc::Request("peer.heal", "replica.heal"),
        Message::Fetch { .. } => Rpc::Request("peer.fetch", "replica.fetch"),
        Message::FetchRange { .. } => Rpc::Request("peer.fetch_range", "replica.fetch_range"),
        Message::Propose(_) => Rpc::Request("peer.propose", "control.propose"),
        Message::Forward(_) => Rpc::Request("peer.forward", "coordinator.forward"),
        Message::Stored
        | Message::Fetched { .. }
        | Message::FetchedRange { .. }
        | Message::Failed(_)
        | Message::Forwarded(_) => Rpc::Response,
        // Groups have their own spans; sampled messages are not gathered with others.
        Message::Redirect { .. } | Message::Defined | Message::Raft { .. } | Message::Parts(_) => {
            Rpc::Neither
        }
    }
}

impl RpcSpans {
    /// Creates the recorder, without open spans.
    pub fn new(node: NodeId, clock: Arc<Clock>, telemetry: Arc<Telemetry>) -> Self {
        RpcSpans {
            node,
            clock,
            telemetry,
            table: Mutex::default(),
        }
    }

    /// Called before a message is sent to `peer`.
    pub fn on_send(&self, peer: NodeId, header: &mut Header, message: &Message) {
        if let Some(trace) = sampled(header) {
            match rpc(message) {
                Rpc::Request(name, _) => self.begin(name, peer, trace, header),
                Rpc::Response => self.end(trace, header, message),
                Rpc::Neither => {}
            }
        }
    }

    /// Called before a message from `peer` is delivered.
    pub fn on_receive(&self, peer: NodeId, header: &mut Header, message: &Message) {
        if let Some(trace) = sampled(header) {
            match rpc(message) {
                Rpc::Request(_, name) => self.begin(name, peer, trace, header),
                Rpc::Response => self.end(trace, header, message),
                Rpc::Neither => {}
            }
        }
    }

    fn begin(&self, name: &'static str, peer: NodeId, parent: TraceContext, header: &mut Header) {
        // Without random bits there is no span.
        let Ok(span_id) = getrandom::u64() else { return };
        let span_id = span_id.max(1);
        let now = self.clock.now();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let late = table.take_late(now.instant);
        let has_room = table.open.len() < MAX_OPEN_SPANS;
        if has_room {
            let span = OpenSpan {
                parent,
                name,
                peer,
                started: now.wall,
                deadline: header.deadline,
            };
            table.by_deadline.insert((span.deadline, span_id));
            table.open.insert(span_id, span);
            header.trace = Some(TraceContext { span_id, ..parent });
        }
        drop(table);
        if !late.is_empty() {
            let spans = late
                .into_iter()
                .map(|(id, span)| self.span(id, span, Some("Unanswered")));
            self.telemetry.spans(spans.collect());
        }
    }

    fn end(&self, trace: TraceContext, header: &mut Header, message: &Message) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(span) = table.take(trace.span_id) else {
            return;
        };
        drop(table);
        header.trace = Some(span.parent);
        let error = match message {
            Message::Failed(error) | Message::Forwarded(Err(error)) => Some(error.name()),
            _ => None,
        };
        self.telemetry.spans(vec![self.span(trace.span_id, span, error)]);
    }

    fn span(&self, span_id: u64, span: OpenSpan, error: Option<&str>) -> Span {
        let peer = span.peer;
        let span = Span {
            trace_id: span.parent.trace_id,
            span_id,
            parent_id: span.parent.span_id,
            name: span.name.to_owned(),
            node: Some(self.node),
            start: span.started,
            end: self.clock.wall().max(span.started),
            attributes: Vec::new(),
            error: error.map(str::to_owned),
        };
        span.with("rpc.system.name", "quorate").with("quorate.peer", peer)
    }
}

impl Table {
    fn take(&mut self, span_id: u64) -> Option<OpenSpan> {
        let span = self.open.remove(&span_id)?;
        self.by_deadline.remove(&(span.deadline, span_id));
        Some(span)
    }

    /// Removes the spans whose deadline has passed.
    fn take_late(&mut self, now: Instant) -> Vec<(u64, OpenSpan)> {
        let mut late = Vec::new();
        while let Some((deadline, span_id)) = self.by_deadline.first().copied()
            && deadline <= now
        {
            let span = self.take(span_id).expect("both maps have the same spans");
            late.push((span_id, span));
        }
        late
    }
}

fn sampled(header: &Header) -> Option<TraceContext> {
    header.trace.filter(|trace| trace.sampled)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_core::error::Error;

    use super::*;

    const CLIENT: TraceContext = TraceContext {
        trace_id: 7,
        span_id: 1,
        sampled: true,
    };

    fn header(trace: Option<TraceContext>, deadline: Instant) -> Header {
        Header {
            generation: 1,
            request: 5,
            deadline,
            trace,
        }
    }

    fn rpc_spans(node: u16) -> (RpcSpans, Arc<Telemetry>) {
        let clock = Arc::new(Clock::start());
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock), NodeId(node), 1, 16, 1_000));
        (
            RpcSpans::new(NodeId(node), clock, Arc::clone(&telemetry)),
            telemetry,
        )
    }

    fn fetch() -> Message {
        Message::Fetch {
            key: "key".try_into().unwrap(),
        }
    }

    #[test]
    fn an_rpc_is_a_span_at_either_end() {
        let ((here, ours), (there, theirs)) = (rpc_spans(1), rpc_spans(2));
        let sent = header(Some(CLIENT), Instant::NEVER);
        let mut on_the_way = sent;
        here.on_send(NodeId(2), &mut on_the_way, &fetch());
        there.on_receive(NodeId(1), &mut on_the_way, &fetch());
        let error = Message::Failed(Error::invalid("no"));
        there.on_send(NodeId(1), &mut on_the_way, &error);
        here.on_receive(NodeId(2), &mut on_the_way, &error);
        assert_eq!(on_the_way, sent, "the role sees the original header");
        let (ours, theirs) = (ours.spans_of(7), theirs.spans_of(7));
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        assert_eq!((ours[0].name.as_str(), ours[0].parent_id), ("peer.fetch", 1));
        assert_eq!(
            (theirs[0].name.as_str(), theirs[0].parent_id),
            ("replica.fetch", ours[0].span_id)
        );
        assert_eq!(ours[0].error.as_deref(), Some("InvalidArgument"));
        assert!(here.table.lock().unwrap().open.is_empty());
    }

    #[test]
    fn unsampled_messages_are_not_recorded() {
        let (spans, telemetry) = rpc_spans(1);
        let silent = TraceContext {
            sampled: false,
            ..CLIENT
        };
        for trace in [None, Some(silent)] {
            let mut out = header(trace, Instant::NEVER);
            spans.on_send(NodeId(2), &mut out, &fetch());
            assert_eq!(out.trace, trace);
        }
        assert!(spans.table.lock().unwrap().open.is_empty());
        assert!(telemetry.spans_of(7).is_empty());
    }

    #[test]
    fn unanswered_spans_end_and_their_number_is_bounded() {
        let (spans, telemetry) = rpc_spans(1);
        let late = spans.clock.instant();
        spans.on_send(NodeId(2), &mut header(Some(CLIENT), late), &fetch());
        for _ in 0..MAX_OPEN_SPANS + 5 {
            let deadline = spans.clock.instant() + Duration::from_secs(60);
            spans.on_send(NodeId(3), &mut header(Some(CLIENT), deadline), &fetch());
        }
        let ended = telemetry.spans_of(7);
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].error.as_deref(), Some("Unanswered"));
        let table = spans.table.lock().unwrap();
        assert_eq!(
            (table.open.len(), table.by_deadline.len()),
            (MAX_OPEN_SPANS, MAX_OPEN_SPANS)
        );
    }
}
