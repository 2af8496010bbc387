//! Telemetry of a node: timeline, spans, metrics, log.
//!
//! Roles only return data ([`TimelineEvent`], [`Span`], [`Measurement`]); this module adds node and time, keeps them in
//! bounded memory for clients and `/metrics`, and passes them to exporters ([`SpanSink`]). Correctness does not depend on
//! telemetry, so it must never block a role or grow without bound.

mod claims;
mod groups;
pub mod log;
pub mod metrics;
mod process;
pub mod spans;
pub mod timeline;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::GroupClaim;
use quorate_protocol::telemetry::{Measurement, Occurrence, Span, TimelineEvent};
use quorate_raft::types::GroupId;

use crate::clock::Clock;
use claims::Claims;
pub use metrics::Metrics;
pub use spans::{SpanRing, SpanSink};
pub use timeline::Timeline;

/// The telemetry of a node.
pub struct Telemetry {
    clock: Arc<Clock>,
    node: NodeId,
    generation: AtomicU64,
    timeline: Timeline,
    spans: SpanRing,
    metrics: Metrics,
    claims: Claims,
    sinks: RwLock<Vec<Arc<dyn SpanSink>>>,
}

impl Telemetry {
    /// Telemetry of `node` in the topology `generation`, keeping at most this many timeline events and spans.
    pub fn new(clock: Arc<Clock>, node: NodeId, generation: u64, events: usize, spans: usize) -> Self {
        Telemetry {
            clock,
            node,
            generation: AtomicU64::new(generation),
            timeline: Timeline::new(events),
            spans: SpanRing::new(spans),
            metrics: Metrics::new(node),
            claims: Claims::default(),
            sinks: RwLock::default(),
        }
    }

    /// Adds an event to the timeline and the log.
    pub fn emit(&self, event: TimelineEvent) {
        match &event {
            TimelineEvent::PeerRefused { .. }
            | TimelineEvent::StorageFull
            | TimelineEvent::GroupBroken { .. }
            | TimelineEvent::MessageRejected { .. }
            | TimelineEvent::TermsExhausted { .. }
            | TimelineEvent::QuorumLost { .. }
            | TimelineEvent::CorruptRecord { .. } => {
                tracing::warn!(?event, "timeline");
            }
            _ => tracing::info!(?event, "timeline"),
        }
        self.metrics.timeline_event(&event);
        if let TimelineEvent::TopologyChanged { generation } = &event {
            self.generation.fetch_max(*generation, Ordering::Relaxed);
        }
        self.timeline
            .push(self.clock.wall(), self.node, self.generation(), event);
    }

    /// The current topology generation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Removes a group whose server has ended on this node.
    pub fn forget_group(&self, group: GroupId) {
        if let Some(claim) = self.claims.forget(group) {
            self.metrics.forget_group(&claim);
        }
    }

    /// Records the current claim of a server of a Raft group.
    pub fn group(&self, claim: GroupClaim) {
        self.claims.set(claim.clone(), self.clock.instant());
        self.metrics.group(claim);
    }

    /// The claims of this node's servers of Raft groups, by group.
    pub fn claims(&self, now: Instant) -> Vec<GroupClaim> {
        self.claims.all(now)
    }

    /// The timeline after `sequence`; 0 returns all retained events.
    pub fn events_after(&self, sequence: u64) -> Vec<Occurrence> {
        self.timeline.after(sequence)
    }

    /// Keeps finished spans of a sampled trace and passes them to the exporters.
    pub fn spans(&self, spans: Vec<Span>) {
        for sink in self.sinks.read().expect("sinks").iter() {
            sink.export(&spans);
        }
        self.spans.extend(spans);
    }

    /// The retained spans of a trace.
    pub fn spans_of(&self, trace_id: u128) -> Vec<Span> {
        self.spans.of(trace_id)
    }

    /// Counts a finished operation.
    pub fn measure(&self, measurement: &Measurement) {
        self.metrics.operation(measurement);
    }

    /// The counters and gauges.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Adds an exporter for all later spans.
    pub fn add_sink(&self, sink: Arc<dyn SpanSink>) {
        self.sinks.write().expect("sinks").push(sink);
    }

    /// Flushes the exporters. Called once, when the node stops.
    pub fn flush(&self) {
        for sink in self.sinks.read().expect("sinks").iter() {
            sink.flush();
        }
    }
}
