//! The client's own finished spans, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_protocol::telemetry::Span;

/// Receives every finished span.
pub type SpanSink = Arc<dyn Fn(&Span) + Send + Sync>;

/// The latest spans of sampled operations.
pub(super) struct SpanRing {
    capacity: usize,
    sink: Option<SpanSink>,
    kept: Mutex<VecDeque<Span>>,
}

impl SpanRing {
    pub(super) fn new(capacity: usize, sink: Option<SpanSink>) -> Self {
        SpanRing {
            capacity,
            sink,
            kept: Mutex::default(),
        }
    }

    pub(super) fn push(&self, span: Span) {
        if let Some(sink) = &self.sink {
            sink(&span);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= self.capacity.max(1) {
            kept.pop_front();
        }
        kept.push_back(span);
    }

    pub(super) fn of(&self, trace_id: u128) -> Vec<Span> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .filter(|span| span.trace_id == trace_id)
            .cloned()
            .collect()
    }
}
