//! Which operations are traced, and where a client's spans go.
//!
//! An operation is traced when its caller says so. Where the environment asks for an export over OTLP, all others are
//! too, or the share of them that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::Trace;
use quorate_client::shell::SpanSink;
use quorate_core::error::Error;
use quorate_otlp::Exporter;

/// How long closing waits for spans to leave.
const FLUSH: Duration = Duration::from_secs(1);

/// Decides for one client.
pub(crate) struct Sampling {
    exporter: Option<Exporter>,
    ratio: f64,
    operations: AtomicU64,
}

impl Sampling {
    /// What the environment asks for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an endpoint that spans cannot be sent to.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let exporter = Exporter::from_environment("quorate-client", &[]).map_err(Error::invalid)?;
        let ratio = if exporter.is_some() { ratio() } else { 0.0 };
        Ok(Sampling {
            exporter,
            ratio,
            operations: AtomicU64::new(0),
        })
    }

    /// Where finished spans go, if anywhere.
    pub(crate) fn sink(&self) -> Option<SpanSink> {
        let exporter = self.exporter.clone()?;
        Some(Arc::new(move |span| exporter.export(std::slice::from_ref(span))))
    }

    /// Whether the next operation is traced; `asked` when its caller wants it to be.
    pub(crate) fn decide(&self, asked: bool) -> Trace {
        if asked || (self.ratio > 0.0 && self.takes_its_turn()) {
            Trace::New
        } else {
            Trace::Off
        }
    }

    /// Sends what is queued, and waits for it a little.
    pub(crate) fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush(FLUSH);
        }
    }

    /// Evenly: of n operations, n times the ratio.
    fn takes_its_turn(&self) -> bool {
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
