//! OTLP export of finished spans to a collector, if the environment configures one.
//!
//! Quorate's own spans ([`Span`]) are created when they are finished: by roles, which are pure, and by clients. They need
//! no tracer, only the export. Spans of the `tracing` macros (start-up, storage) are exported through
//! [`Exporter::layer`].
//!
//! ```text
//!  roles, clients ── Span ──▶ Exporter::export ─┐
//!                                               ├─▶ bounded queue ─▶ one thread ─▶ OTLP/HTTP (protobuf)
//!  tracing macros ─▶ Exporter::layer ───────────┘
//! ```
//! The standard variables configure it: nothing is exported unless `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, or `OTEL_TRACES_EXPORTER=otlp`; `OTEL_SDK_DISABLED=true` and
//! `OTEL_TRACES_EXPORTER=none` disable it. `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_EXPORTER_OTLP_HEADERS` and `_TIMEOUT` have their standard meaning. [`Exporter::export`] never blocks: spans are
//! dropped and counted when the queue is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter as _, SpanProcessor};
use quorate_protocol::telemetry::Span;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

mod convert;

/// The capacity of the queue, in batches of spans.
const QUEUE: usize = 8_192;
/// The most spans per request.
const BATCH: usize = 512;
/// How long a span waits for its batch to fill.
const LINGER: Duration = Duration::from_millis(200);

/// Whether the environment enables export.
pub fn wanted() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = set("OTEL_TRACES_EXPORTER");
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    !disabled
        && exporter
            .as_deref()
            .map_or(endpoint.is_some(), |exporter| exporter == "otlp")
}

enum Work {
    Spans(Vec<SpanData>),
    /// Sends everything queued before, then notifies.
    Flush(SyncSender<()>),
}

/// Sends spans to a collector on its own thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    queue: SyncSender<Work>,
    dropped: Arc<AtomicU64>,
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Creates an exporter for the service `service` (unless `OTEL_SERVICE_NAME` overrides it), with attributes for its
    /// resource; `None` if the environment does not enable export.
    ///
    /// # Errors
    /// Why the endpoint cannot be used.
    pub fn from_environment(service: &str, attributes: &[(&str, &str)]) -> Result<Option<Self>, String> {
        if !wanted() {
            return Ok(None);
        }
        let mut resource = Resource::builder().with_attributes(
            attributes
                .iter()
                .map(|(name, value)| KeyValue::new(name.to_string(), value.to_string())),
        );
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service.to_owned());
        }
        let resource = resource.build();
        let (queue, work) = sync_channel(QUEUE);
        let (started, start) = sync_channel(1);
        let thread_resource = resource.clone();
        std::thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || run(&work, thread_resource, &started))
            .map_err(|error| format!("cannot start the OTLP exporter's thread: {error}"))?;
        start
            .recv()
            .map_err(|_| "the OTLP exporter's thread ended".to_owned())??;
        let dropped = Arc::new(AtomicU64::new(0));
        let forward = Forward {
            queue: queue.clone(),
            dropped: dropped.clone(),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(forward)
            .build();
        Ok(Some(Exporter {
            queue,
            dropped,
            provider,
        }))
    }

    /// Queues spans. Never blocks.
    pub fn export(&self, spans: &[Span]) {
        offer(
            &self.queue,
            &self.dropped,
            spans.iter().map(convert::span_data).collect(),
        );
    }

    /// Waits up to `timeout` until the queued spans are sent. Returns whether they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, waiting) = sync_channel(1);
        let end = Instant::now() + timeout;
        let mut flush = Work::Flush(done);
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.queue.try_send(flush) {
            if Instant::now() >= end {
                return false;
            }
            flush = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        waiting
            .recv_timeout(end.saturating_duration_since(Instant::now()))
            .is_ok()
    }

    /// The number of spans dropped because the collector was slow or unreachable.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A layer that exports the spans of the `tracing` macros.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("quorate"))
    }
}

fn offer(queue: &SyncSender<Work>, dropped: &AtomicU64, spans: Vec<SpanData>) {
    let count = spans.len() as u64;
    if count > 0 && queue.try_send(Work::Spans(spans)).is_err() {
        dropped.fetch_add(count, Ordering::Relaxed);
    }
}

/// Queues the spans of a tracer.
#[derive(Debug)]
struct Forward {
    queue: SyncSender<Work>,
    dropped: Arc<AtomicU64>,
}

impl SpanProcessor for Forward {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        offer(&self.queue, &self.dropped, vec![span]);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The exporter's thread: batches spans and sends them until all senders are dropped.
fn run(work: &Receiver<Work>, resource: Resource, started: &SyncSender<Result<(), String>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(format!("the OTLP exporter cannot start: {error}")));
            return;
        }
    };
    let _entered = runtime.enter();
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .build();
    let mut exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            let _ = started.send(Err(format!("invalid OTEL_EXPORTER_OTLP_ENDPOINT: {error}")));
            return;
        }
    };
    exporter.set_resource(&resource);
    let _ = started.send(Ok(()));
    let mut batch = Vec::new();
    let mut failing = false;
    let mut send = |batch: &mut Vec<SpanData>| {
        if batch.is_empty() {
            return;
        }
        match runtime.block_on(exporter.export(std::mem::take(batch))) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "cannot export spans; they are dropped until the collector is reachable");
            }
            Err(_) => {}
        }
    };
    let mut first: Option<Instant> = None;
    loop {
        let wait = first.map_or(Duration::from_secs(3600), |first| {
            LINGER.saturating_sub(first.elapsed())
        });
        match work.recv_timeout(wait) {
            Ok(Work::Spans(spans)) => {
                batch.extend(spans);
                first.get_or_insert_with(Instant::now);
                if batch.len() < BATCH {
                    continue;
                }
            }
            Ok(Work::Flush(done)) => {
                send(&mut batch);
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                send(&mut batch);
                return;
            }
        }
        send(&mut batch);
        first = None;
    }
}
