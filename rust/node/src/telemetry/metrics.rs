//! Metrics in the Prometheus text format, with small label sets.
//!
//! What changes with each request is counted as it happens; what is a state (links, stored bytes, memory) is asked for
//! when somebody scrapes, through [`Metrics::add_gauges`].

use std::sync::{Mutex, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use quorate_core::ids::NodeId;
use quorate_core::level::Level;
use quorate_protocol::api::{GroupClaim, PeerStatus, StorageStatus};
use quorate_protocol::telemetry::{Consistency, Measurement, TimelineEvent};

use super::groups::Groups;
use super::process;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operations {
    op: &'static str,
    consistency: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Durations {
    op: &'static str,
    consistency: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Environment {
    environment: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    event: &'static str,
}

/// What is a state rather than a count, asked for at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// The links to the peers.
    pub peers: Vec<PeerStatus>,
    /// Bytes of the data files.
    pub stored_bytes: u64,
    /// How full the disk is.
    pub storage: StorageStatus,
    /// Requests of clients in flight.
    pub in_flight: u64,
    /// Messages that were dropped for want of room or credit, since the start.
    pub shed_messages: u64,
}

type Gather = Box<dyn Fn(&mut Gauges) + Send + Sync>;

/// A node's metrics.
pub struct Metrics {
    registry: Registry,
    operations: Family<Operations, Counter>,
    durations: Family<Durations, Histogram, fn() -> Histogram>,
    siblings: Counter,
    events: Family<Kind, Counter>,
    commits: Histogram,
    commit_requests: Histogram,
    commit_bytes: Counter,
    gathered: Mutex<Gathered>,
    gather: RwLock<Vec<Gather>>,
    groups: Groups,
}

/// The metrics behind [`Gauges`].
#[derive(Default)]
struct Gathered {
    in_flight: Gauge,
    stored: Gauge,
    full: Gauge,
    available: Gauge,
    used: Family<Environment, Gauge>,
    limit: Family<Environment, Gauge>,
    shed: Counter,
    cpu: Counter<f64, std::sync::atomic::AtomicU64>,
    resident: Gauge,
    up: Family<Peer, Gauge>,
    round_trip: Family<Peer, Gauge<f64, std::sync::atomic::AtomicU64>>,
    queued: Family<Peer, Gauge>,
}

fn latency() -> Histogram {
    // 50 us to 26 s
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

impl Metrics {
    /// Metrics that all carry the label of `node`.
    pub fn new(node: NodeId) -> Self {
        let labels = [("node".into(), node.to_string().into())];
        let mut registry = Registry::with_prefix_and_labels("quorate", labels.into_iter());
        let metrics = Metrics {
            operations: Family::default(),
            durations: Family::new_with_constructor(latency as fn() -> Histogram),
            siblings: Counter::default(),
            events: Family::default(),
            commits: latency(),
            commit_requests: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            commit_bytes: Counter::default(),
            gathered: Mutex::default(),
            gather: RwLock::default(),
            groups: Groups::default(),
            registry: Registry::default(),
        };
        registry.register(
            "operations",
            "Operations that this node coordinated, by outcome",
            metrics.operations.clone(),
        );
        registry.register_with_unit(
            "operation_duration",
            "From arrival at the coordinator to its reply",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "reads_with_siblings",
            "Reads that returned concurrent values",
            metrics.siblings.clone(),
        );
        registry.register(
            "timeline_events",
            "State changes, by kind",
            metrics.events.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Commits to disk",
            Unit::Seconds,
            metrics.commits.clone(),
        );
        registry.register(
            "commit_requests",
            "Requests that shared a commit",
            metrics.commit_requests.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Written by commits",
            Unit::Bytes,
            metrics.commit_bytes.clone(),
        );
        metrics.gathered.lock().expect("gauges").register(&mut registry);
        metrics.groups.register(&mut registry);
        Metrics { registry, ..metrics }
    }

    /// Counts a finished operation.
    pub fn operation(&self, measurement: &Measurement) {
        let op = measurement.operation.name();
        let consistency = consistency_label(measurement.consistency);
        let outcome = outcome_label(&measurement.outcome);
        self.operations
            .get_or_create(&Operations {
                op,
                consistency,
                outcome,
            })
            .inc();
        let seconds = Duration::from_micros(measurement.micros).as_secs_f64();
        self.durations
            .get_or_create(&Durations { op, consistency })
            .observe(seconds);
        if measurement.siblings > 1 {
            self.siblings.inc();
        }
    }

    /// Counts a commit of the store.
    pub fn commit(&self, requests: usize, bytes: usize, took: Duration) {
        self.commits.observe(took.as_secs_f64());
        self.commit_requests.observe(requests as f64);
        self.commit_bytes.inc_by(bytes as u64);
    }

    /// Counts a timeline event.
    pub fn timeline_event(&self, event: &TimelineEvent) {
        self.events
            .get_or_create(&Kind {
                event: event_label(event),
            })
            .inc();
    }

    /// A server of a Raft group claims this now.
    pub fn group(&self, claim: GroupClaim) {
        self.groups.set(claim);
    }

    /// The server that claimed this last is gone.
    pub fn forget_group(&self, claim: &GroupClaim) {
        self.groups.forget(claim);
    }

    /// Asks `gather` at each scrape.
    pub fn add_gauges(&self, gather: impl Fn(&mut Gauges) + Send + Sync + 'static) {
        self.gather.write().expect("gauges").push(Box::new(gather));
    }

    /// Everything, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut gauges = Gauges::default();
        for gather in self.gather.read().expect("gauges").iter() {
            gather(&mut gauges);
        }
        self.gathered.lock().expect("gauges").set(&gauges);
        let mut text = String::with_capacity(16 << 10);
        text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

impl Gathered {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests_in_flight",
            "Requests of clients in flight",
            self.in_flight.clone(),
        );
        registry.register_with_unit(
            "stored",
            "Size of the data files",
            Unit::Bytes,
            self.stored.clone(),
        );
        registry.register(
            "storage_full",
            "1 while writes are refused because the disk or the map of an environment is full",
            self.full.clone(),
        );
        registry.register_with_unit(
            "storage_available",
            "Free space of the data directory's file system",
            Unit::Bytes,
            self.available.clone(),
        );
        registry.register_with_unit(
            "storage_used",
            "Used of an environment of the store",
            Unit::Bytes,
            self.used.clone(),
        );
        registry.register_with_unit(
            "storage_limit",
            "The most that can be used of an environment of the store",
            Unit::Bytes,
            self.limit.clone(),
        );
        registry.register(
            "link_shed_messages",
            "Messages dropped for want of room or credit",
            self.shed.clone(),
        );
        registry.register("link_up", "Whether the link to the peer is up", self.up.clone());
        registry.register_with_unit(
            "link_round_trip",
            "Of the last heartbeat",
            Unit::Seconds,
            self.round_trip.clone(),
        );
        registry.register_with_unit(
            "link_queued",
            "Waiting to be sent",
            Unit::Bytes,
            self.queued.clone(),
        );
        registry.register_with_unit("process_cpu", "Time on the CPU", Unit::Seconds, self.cpu.clone());
        registry.register_with_unit(
            "process_resident_memory",
            "Memory in use",
            Unit::Bytes,
            self.resident.clone(),
        );
    }

    fn set(&self, gauges: &Gauges) {
        let (cpu_seconds, resident) = process::usage();
        self.cpu.inc_by((cpu_seconds - self.cpu.get()).max(0.0));
        self.resident.set(gauge(resident));
        self.in_flight.set(gauge(gauges.in_flight));
        self.stored.set(gauge(gauges.stored_bytes));
        self.full.set(i64::from(gauges.storage.full.is_some()));
        self.available.set(gauge(gauges.storage.available_bytes));
        for environment in &gauges.storage.environments {
            let label = Environment {
                environment: environment.name.clone(),
            };
            self.used.get_or_create(&label).set(gauge(environment.used_bytes));
            self.limit
                .get_or_create(&label)
                .set(gauge(environment.limit_bytes));
        }
        self.shed
            .inc_by(gauges.shed_messages.saturating_sub(self.shed.get()));
        for peer in &gauges.peers {
            let label = Peer {
                peer: peer.node.to_string(),
            };
            self.up.get_or_create(&label).set(i64::from(peer.up));
            self.queued.get_or_create(&label).set(gauge(peer.queued_bytes));
            let round_trip = Duration::from_micros(peer.round_trip_micros).as_secs_f64();
            self.round_trip.get_or_create(&label).set(round_trip);
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Numeric levels share one label: how many there are is the user's choice, and labels must be few.
fn consistency_label(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Level(Level::One) => "ONE",
        Consistency::Level(Level::Two) => "TWO",
        Consistency::Level(Level::Three) => "THREE",
        Consistency::Level(Level::Quorum) => "QUORUM",
        Consistency::Level(Level::All) => "ALL",
        Consistency::Level(Level::Count(_)) => "COUNT",
        Consistency::Linearizable => "linearizable",
        Consistency::Stale => "stale",
    }
}

/// The outcome as a label: `ok` or a name of [`quorate_core::error::Error`].
fn outcome_label(outcome: &str) -> &'static str {
    const NAMES: [&str; 18] = [
        "ConnectionRefused",
        "ConditionFailed",
        "SessionExpired",
        "PermissionDenied",
        "ok",
        "Unavailable",
        "Overloaded",
        "OutcomeUnknown",
        "ReadTimeout",
        "InvalidArgument",
        "LimitExceeded",
        "NotFound",
        "KeyspaceExists",
        "StorageFull",
        "CorruptRecord",
        "ConnectionLost",
        "Refused",
        "Closed",
    ];
    NAMES.into_iter().find(|name| *name == outcome).unwrap_or("other")
}

fn event_label(event: &TimelineEvent) -> &'static str {
    match event {
        TimelineEvent::NodeStarted => "NodeStarted",
        TimelineEvent::NodeStopping => "NodeStopping",
        TimelineEvent::PeerUp { .. } => "PeerUp",
        TimelineEvent::PeerDown { .. } => "PeerDown",
        TimelineEvent::PeerRefused { .. } => "PeerRefused",
        TimelineEvent::KeyspaceCreated { .. } => "KeyspaceCreated",
        TimelineEvent::ReadRepaired { .. } => "ReadRepaired",
        TimelineEvent::ClockAhead { .. } => "ClockAhead",
        TimelineEvent::StorageFull => "StorageFull",
        TimelineEvent::StorageRecovered => "StorageRecovered",
        TimelineEvent::CorruptRecord { .. } => "CorruptRecord",
        TimelineEvent::Fault { .. } => "Fault",
        TimelineEvent::ElectionStarted { .. } => "ElectionStarted",
        TimelineEvent::LeaderElected { .. } => "LeaderElected",
        TimelineEvent::LeaderChanged { .. } => "LeaderChanged",
        TimelineEvent::QuorumLost { .. } => "QuorumLost",
        TimelineEvent::LogCut { .. } => "LogCut",
        TimelineEvent::SnapshotTaken { .. } => "SnapshotTaken",
        TimelineEvent::SnapshotInstalled { .. } => "SnapshotInstalled",
        TimelineEvent::SnapshotCorrupt { .. } => "SnapshotCorrupt",
        TimelineEvent::GroupBroken { .. } => "GroupBroken",
        TimelineEvent::TopologyChanged { .. } => "TopologyChanged",
        TimelineEvent::KeyspaceAltered { .. } => "KeyspaceAltered",
        TimelineEvent::KeyspaceDropped { .. } => "KeyspaceDropped",
        TimelineEvent::MessageRejected { .. } => "MessageRejected",
        TimelineEvent::TermsExhausted { .. } => "TermsExhausted",
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::error::Error;
    use quorate_protocol::telemetry::Operation;

    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let metrics = Metrics::new(NodeId(3));
        for outcome in ["ok", "ok", "Unavailable"] {
            metrics.operation(&Measurement {
                operation: Operation::Put,
                consistency: Consistency::Level(Level::Quorum),
                outcome: outcome.into(),
                micros: 700,
                siblings: 0,
            });
        }
        metrics.commit(12, 4_096, Duration::from_millis(2));
        metrics.timeline_event(&TimelineEvent::StorageFull);
        metrics.add_gauges(|gauges| {
            gauges.in_flight = 5;
            gauges.peers.push(PeerStatus {
                node: NodeId(1),
                up: true,
                round_trip_micros: 250,
                queued_bytes: 9,
            });
        });
        let text = metrics.render();
        for line in [
            r#"quorate_operations_total{node="n3",op="put",consistency="QUORUM",outcome="ok"} 2"#,
            r#"quorate_operations_total{node="n3",op="put",consistency="QUORUM",outcome="Unavailable"} 1"#,
            r#"quorate_operation_duration_seconds_count{node="n3",op="put",consistency="QUORUM"} 3"#,
            r#"quorate_commit_bytes_total{node="n3"} 4096"#,
            r#"quorate_requests_in_flight{node="n3"} 5"#,
            r#"quorate_link_up{node="n3",peer="n1"} 1"#,
            r#"quorate_timeline_events_total{node="n3",event="StorageFull"} 1"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
    }

    #[test]
    fn every_error_has_its_own_outcome() {
        for error in [
            Error::Closed(String::new()),
            Error::OutcomeUnknown {
                acked: 0,
                required: 1,
                reason: None,
            },
        ] {
            assert_eq!(outcome_label(error.name()), error.name());
        }
        assert_eq!(outcome_label("nonsense"), "other");
    }
}
