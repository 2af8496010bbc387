//! The span ring: the latest spans of sampled traces, to show a trace without a collector; and the interface of exporters.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use quorate_otlp::Exporter;
use quorate_protocol::telemetry::Span;

/// How long a stopping node waits for the export of its last spans.
const FLUSH: Duration = Duration::from_secs(1);

/// An exporter of finished spans, such as OTLP.
pub trait SpanSink: Send + Sync {
    /// Exports spans. Called on the threads that run the actors: it must not block, and drops spans when its queue is full.
    fn export(&self, spans: &[Span]);

    /// Exports queued spans, within about a second. Called once, when the node stops.
    fn flush(&self);
}

impl SpanSink for Exporter {
    fn export(&self, spans: &[Span]) {
        Exporter::export(self, spans);
    }

    fn flush(&self) {
        if !Exporter::flush(self, FLUSH) {
            tracing::warn!(
                dropped = self.dropped(),
                "timed out exporting the last spans to the collector"
            );
        }
    }
}

/// The latest spans of all traces.
#[derive(Debug)]
pub struct SpanRing {
    capacity: usize,
    spans: Mutex<VecDeque<Span>>,
}

impl SpanRing {
    /// A ring of at most `capacity` spans.
    pub fn new(capacity: usize) -> Self {
        SpanRing {
            capacity,
            spans: Mutex::default(),
        }
    }

    /// Adds spans and removes the oldest beyond the limit.
    pub fn extend(&self, spans: Vec<Span>) {
        let mut ring = self.spans.lock().expect("spans");
        ring.extend(spans);
        let excess = ring.len().saturating_sub(self.capacity);
        ring.drain(..excess);
    }

    /// The retained spans of one trace, in the order in which they ended.
    pub fn of(&self, trace_id: u128) -> Vec<Span> {
        let ring = self.spans.lock().expect("spans");
        ring.iter()
            .filter(|span| span.trace_id == trace_id)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::time::WallTime;

    use super::*;

    fn span(trace_id: u128, span_id: u64) -> Span {
        Span {
            trace_id,
            span_id,
            parent_id: 0,
            name: "test".to_owned(),
            node: None,
            start: WallTime(0),
            end: WallTime(0),
            attributes: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn the_ring_is_bounded_and_searchable_by_trace() {
        let ring = SpanRing::new(4);
        for id in 1..=6 {
            ring.extend(vec![span(u128::from(id % 2), id)]);
        }
        let ids = |trace| ring.of(trace).iter().map(|span| span.span_id).collect::<Vec<_>>();
        assert_eq!(ids(0), [4, 6]);
        assert_eq!(ids(1), [3, 5]);
        assert_eq!(ids(2), [0u64; 0]);
    }
}
