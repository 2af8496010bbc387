//! Converts Quorate's spans to OpenTelemetry's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use quorate_core::time::WallTime;
use quorate_protocol::telemetry::Span;

/// Converts a span for an exporter. Spans of coordinators have kind server, spans of clients kind client.
pub(crate) fn span_data(span: &Span) -> SpanData {
    let mut attributes: Vec<KeyValue> = span
        .attributes
        .iter()
        .map(|(name, value)| KeyValue::new(name.clone(), value.clone()))
        .collect();
    if let Some(node) = span.node {
        attributes.push(KeyValue::new("quorate.node", node.to_string()));
    }
    if let Some(error) = &span.error {
        attributes.push(KeyValue::new("error.type", error.clone()));
    }
    let kind = match (span.node, span.name.starts_with("quorum.")) {
        (None, _) => SpanKind::Client,
        (Some(_), true) => SpanKind::Server,
        (Some(_), false) => SpanKind::Internal,
    };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.trace_id),
            SpanId::from(span.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: SpanId::from(span.parent_id),
        parent_span_is_remote: kind == SpanKind::Server,
        span_kind: kind,
        name: span.name.clone().into(),
        start_time: system_time(span.start),
        end_time: system_time(span.end),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match &span.error {
            Some(error) => Status::error(error.clone()),
            None => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("quorate").build(),
    }
}

fn system_time(time: WallTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(time.0)
}
