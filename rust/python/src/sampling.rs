//! Sampling of operations, and export of a client's spans.
//!
//! An operation is traced if its caller requests it. If the environment configures an export over OTLP, all others are
//! too, or the share of them that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` specify.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::Trace;
use quorate_client::shell::SpanSink;
use quorate_core::error::Error;
use quorate_otlp::Exporter;

/// How long closing waits for the export of spans.
const FLUSH: Duration = Duration::from_secs(1);

/// The sampler of one client.
pub(crate) struct Sampling {
    exporter: Option<Exporter>,
    ratio: f64,
    operations: AtomicU64,
}

impl Sampling {
    /// The sampler that the environment configures.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid endpoint.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let exporter = Exporter::from_environment("quorate-client", &[]).map_err(Error::invalid)?;
        let ratio = if exporter.is_some() { ratio() } else { 0.0 };
        Ok(Sampling {
            exporter,
            ratio,
            operations: AtomicU64::new(0),
        })
    }

    /// The exporter of finished spans, if there is one.
    pub(crate) fn sink(&self) -> Option<SpanSink> {
        let exporter = self.exporter.clone()?;
        Some(Arc::new(move |span| exporter.export(std::slice::from_ref(span))))
    }

    /// Whether the next operation is traced; `requested` by its caller or sampled.
    pub(crate) fn decide(&self, requested: bool) -> Trace {
        if requested || (self.ratio > 0.0 && self.is_sampled()) {
            Trace::New
        } else {
            Trace::Off
        }
    }

    /// Sends queued spans, and waits briefly for their export.
    pub(crate) fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush(FLUSH);
        }
    }

    /// Evenly: of n operations, n times the ratio.
    fn is_sampled(&self) -> bool {
        let before = self.operations.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * self.ratio).floor() > (before * self.ratio).floor()
    }
}

fn ratio() -> f64 {
    let sampler = std::env::var("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let argument = || std::env::var("OTEL_TRACES_SAMPLER_ARG").ok()?.parse::<f64>().ok();
    match sampler.trim_start_matches("parentbased_") {
        "always_off" => 0.0,
        "traceidratio" => argument().unwrap_or(1.0).clamp(0.0, 1.0),
        _ => 1.0,
    }
}
