//! What a traced request does between two nodes, as spans.
//!
//! ```text
//!  coordinator's node                                   replica's node
//!  quorum.put ─┬─ peer.store (to n2) ─────────────────── replica.store ─── storage.commit
//!              │  queue, network, all that n2 does,      from arrival to
//!              │  and the way back                       the answer's leaving
//! ```
//! Roles know of no network, so this is the shell's: on the way out and on the way in it puts its own span into the header
//! of a sampled message, as the parent of what follows, and ends it with the answer, which carries the same header
//! back. To the role the header is as it was. A message that is not sampled costs one look at its header.
//!
//! A hop whose answer does not come ends with its deadline, as an error. Their number is bounded; beyond it hops are not
//! noted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, WallTime};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::telemetry::{Span, TraceContext};

use crate::clock::Clock;
use crate::telemetry::Telemetry;

/// Hops under way that are noted.
const MAX_HOPS: usize = 8_192;

/// One hop under way, under its own span id.
struct Hop {
    /// As the header said before.
    parent: TraceContext,
    name: &'static str,
    peer: NodeId,
    started: WallTime,
    deadline: Instant,
}

#[derive(Default)]
struct Table {
    hops: HashMap<u64, Hop>,
    by_deadline: BTreeSet<(Instant, u64)>,
}

/// The hops of one node, in both directions.
pub struct Hops {
    node: NodeId,
    clock: Arc<Clock>,
    telemetry: Arc<Telemetry>,
    table: Mutex<Table>,
}

/// What a message is to a hop.
enum Part {
    /// It begins one, named so at the end that sends it and at the end that takes it.
    Question(&'static str, &'static str),
    Answer,
    Neither,
}

fn part(message: &Message) -> Part {
    match message {
        Message::Store { .. } => Part::Question("peer.store", "replica.store"),
        Message::Heal { .. } => Part::Question("peer.heal", "replica.heal"),
        Message::Fetch { .. } => Part::Question("peer.fetch", "replica.fetch"),
        Message::FetchRange { .. } => Part::Question("peer.fetch_range", "replica.fetch_range"),
        Message::Propose(_) => Part::Question("peer.propose", "control.propose"),
        Message::Forward(_) => Part::Question("peer.forward", "coordinator.forward"),
        Message::Stored
        | Message::Fetched { .. }
        | Message::FetchedRange { .. }
        | Message::Failed(_)
        | Message::Forwarded(_) => Part::Answer,
        // Groups have spans of their own; what is sampled is no part of others.
        Message::Redirect { .. } | Message::Defined | Message::Raft { .. } | Message::Parts(_) => {
            Part::Neither
        }
    }
}

impl Hops {
    /// None yet.
    pub fn new(node: NodeId, clock: Arc<Clock>, telemetry: Arc<Telemetry>) -> Self {
        Hops {
            node,
            clock,
            telemetry,
            table: Mutex::default(),
        }
    }

    /// A message is about to leave for `peer`.
    pub fn leaves(&self, peer: NodeId, header: &mut Header, message: &Message) {
        if let Some(trace) = sampled(header) {
            match part(message) {
                Part::Question(name, _) => self.begin(name, peer, trace, header),
                Part::Answer => self.end(trace, header, message),
                Part::Neither => {}
            }
        }
    }

    /// A message of `peer` has come and is about to be delivered.
    pub fn comes(&self, peer: NodeId, header: &mut Header, message: &Message) {
        if let Some(trace) = sampled(header) {
            match part(message) {
                Part::Question(_, name) => self.begin(name, peer, trace, header),
                Part::Answer => self.end(trace, header, message),
                Part::Neither => {}
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
        let noted = table.hops.len() < MAX_HOPS;
        if noted {
            let hop = Hop {
                parent,
                name,
                peer,
                started: now.wall,
                deadline: header.deadline,
            };
            table.by_deadline.insert((hop.deadline, span_id));
            table.hops.insert(span_id, hop);
            header.trace = Some(TraceContext { span_id, ..parent });
        }
        drop(table);
        if !late.is_empty() {
            let spans = late
                .into_iter()
                .map(|(id, hop)| self.span(id, hop, Some("Unanswered")));
            self.telemetry.spans(spans.collect());
        }
    }

    fn end(&self, trace: TraceContext, header: &mut Header, message: &Message) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hop) = table.take(trace.span_id) else {
            return;
        };
        drop(table);
        header.trace = Some(hop.parent);
        let error = match message {
            Message::Failed(error) | Message::Forwarded(Err(error)) => Some(error.name()),
            _ => None,
        };
        self.telemetry.spans(vec![self.span(trace.span_id, hop, error)]);
    }

    fn span(&self, span_id: u64, hop: Hop, error: Option<&str>) -> Span {
        let span = Span {
            trace_id: hop.parent.trace_id,
            span_id,
            parent_id: hop.parent.span_id,
            name: hop.name.to_owned(),
            node: Some(self.node),
            start: hop.started,
            end: self.clock.wall().max(hop.started),
            attributes: Vec::new(),
            error: error.map(str::to_owned),
        };
        span.with("rpc.system.name", "quorate")
            .with("quorate.peer", hop.peer)
    }
}

impl Table {
    fn take(&mut self, span_id: u64) -> Option<Hop> {
        let hop = self.hops.remove(&span_id)?;
        self.by_deadline.remove(&(hop.deadline, span_id));
        Some(hop)
    }

    /// Removes the hops that nobody waits for any longer.
    fn take_late(&mut self, now: Instant) -> Vec<(u64, Hop)> {
        let mut late = Vec::new();
        while let Some((deadline, span_id)) = self.by_deadline.first().copied()
            && deadline <= now
        {
            let hop = self.take(span_id).expect("both have the same hops");
            late.push((span_id, hop));
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

    fn hops(node: u16) -> (Hops, Arc<Telemetry>) {
        let clock = Arc::new(Clock::start());
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock), NodeId(node), 1, 16, 1_000));
        (Hops::new(NodeId(node), clock, Arc::clone(&telemetry)), telemetry)
    }

    fn fetch() -> Message {
        Message::Fetch {
            key: "key".try_into().unwrap(),
        }
    }

    #[test]
    fn a_question_and_its_answer_are_a_span_at_either_end() {
        let ((here, ours), (there, theirs)) = (hops(1), hops(2));
        let sent = header(Some(CLIENT), Instant::NEVER);
        let mut on_the_way = sent;
        here.leaves(NodeId(2), &mut on_the_way, &fetch());
        there.comes(NodeId(1), &mut on_the_way, &fetch());
        let error = Message::Failed(Error::invalid("no"));
        there.leaves(NodeId(1), &mut on_the_way, &error);
        here.comes(NodeId(2), &mut on_the_way, &error);
        assert_eq!(on_the_way, sent, "the role hears of none of it");
        let (ours, theirs) = (ours.spans_of(7), theirs.spans_of(7));
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        assert_eq!((ours[0].name.as_str(), ours[0].parent_id), ("peer.fetch", 1));
        assert_eq!(
            (theirs[0].name.as_str(), theirs[0].parent_id),
            ("replica.fetch", ours[0].span_id)
        );
        assert_eq!(ours[0].error.as_deref(), Some("InvalidArgument"));
        assert!(here.table.lock().unwrap().hops.is_empty());
    }

    #[test]
    fn what_is_not_sampled_is_not_noted() {
        let (hops, telemetry) = hops(1);
        let silent = TraceContext {
            sampled: false,
            ..CLIENT
        };
        for trace in [None, Some(silent)] {
            let mut out = header(trace, Instant::NEVER);
            hops.leaves(NodeId(2), &mut out, &fetch());
            assert_eq!(out.trace, trace);
        }
        assert!(hops.table.lock().unwrap().hops.is_empty());
        assert!(telemetry.spans_of(7).is_empty());
    }

    #[test]
    fn unanswered_hops_end_and_their_number_is_bounded() {
        let (hops, telemetry) = hops(1);
        let late = hops.clock.instant();
        hops.leaves(NodeId(2), &mut header(Some(CLIENT), late), &fetch());
        for _ in 0..MAX_HOPS + 5 {
            let deadline = hops.clock.instant() + Duration::from_secs(60);
            hops.leaves(NodeId(3), &mut header(Some(CLIENT), deadline), &fetch());
        }
        let spans = telemetry.spans_of(7);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].error.as_deref(), Some("Unanswered"));
        let table = hops.table.lock().unwrap();
        assert_eq!((table.hops.len(), table.by_deadline.len()), (MAX_HOPS, MAX_HOPS));
    }
}
