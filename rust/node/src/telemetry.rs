//! What a node tells about itself: a timeline, spans, metrics, a log.
//!
//! Roles only return data ([`TimelineEvent`], [`Span`], [`Measurement`]); here it gets its place and time, is kept in
//! bounded memory for whoever asks (a client, `/metrics`), and is handed on to exporters ([`SpanSink`]). Nothing here
//! is needed for correctness, so nothing here may block a role or grow without bound.

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

/// Everything that a node tells about itself.
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
    /// Telemetry of `node` in the topology `generation`, keeping at most so many timeline events and spans.
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

    /// Puts an event on the timeline, and into the log.
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

    /// The topology generation that the node is in.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// This node has no server of the group any longer.
    pub fn forget_group(&self, group: GroupId) {
        if let Some(claim) = self.claims.forget(group) {
            self.metrics.forget_group(&claim);
        }
    }

    /// A server of a Raft group claims this now.
    pub fn group(&self, claim: GroupClaim) {
        self.claims.set(claim.clone(), self.clock.instant());
        self.metrics.group(claim);
    }

    /// What this node's servers of Raft groups claim, by group.
    pub fn claims(&self, now: Instant) -> Vec<GroupClaim> {
        self.claims.all(now)
    }

    /// The timeline after `sequence`; 0 for all that is kept.
    pub fn events_after(&self, sequence: u64) -> Vec<Occurrence> {
        self.timeline.after(sequence)
    }

    /// Keeps the finished spans of a sampled trace and hands them to the exporters.
    pub fn spans(&self, spans: Vec<Span>) {
        for sink in self.sinks.read().expect("sinks").iter() {
            sink.export(&spans);
        }
        self.spans.extend(spans);
    }

    /// The spans of a trace that are still kept.
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

    /// Hands every span from now on to `sink` too.
    pub fn add_sink(&self, sink: Arc<dyn SpanSink>) {
        self.sinks.write().expect("sinks").push(sink);
    }

    /// Gives the exporters time to hand on what they hold. Called once, when the node stops.
    pub fn flush(&self) {
        for sink in self.sinks.read().expect("sinks").iter() {
            sink.flush();
        }
    }
}
