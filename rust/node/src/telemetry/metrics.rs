//! Metrics in the Prometheus text format, with small label sets.
//!
//! Events are counted as they happen; state (links, stored bytes, memory) is collected at each scrape, through
//! [`Metrics::add_gauges`].

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

/// State that is collected at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// The links to the peers.
    pub peers: Vec<PeerStatus>,
    /// Bytes of the data files.
    pub stored_bytes: u64,
    /// The usage of the disk.
    pub storage: StorageStatus,
    /// Requests of clients in flight.
    pub in_flight: u64,
    /// Messages dropped since the start for lack of room or credit.
    pub shed_messages: u64,
}

type Collect = Box<dyn Fn(&mut Gauges) + Send + Sync>;

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
    collected: Mutex<Collected>,
    collect: RwLock<Vec<Collect>>,
    groups: Groups,
}

/// The metrics behind [`Gauges`].
#[derive(Default)]
struct Collected {
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
            collected: Mutex::default(),
            collect: RwLock::default(),
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
            "Duration from arrival at the coordinator to its response",
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
            "Timeline events, by kind",
            metrics.events.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Duration of commits to disk",
            Unit::Seconds,
            metrics.commits.clone(),
        );
        registry.register(
            "commit_requests",
            "Requests per commit",
            metrics.commit_requests.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Bytes written by commits",
            Unit::Bytes,
            metrics.commit_bytes.clone(),
        );
        metrics.collected.lock().expect("gauges").register(&mut registry);
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

    /// Records the current claim of a server of a Raft group.
    pub fn group(&self, claim: GroupClaim) {
        self.groups.set(claim);
    }

    /// Removes the metrics of a server that has ended.
    pub fn forget_group(&self, claim: &GroupClaim) {
        self.groups.forget(claim);
    }

    /// Calls `collect` at each scrape.
    pub fn add_gauges(&self, collect: impl Fn(&mut Gauges) + Send + Sync + 'static) {
        self.collect.write().expect("gauges").push(Box::new(collect));
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut gauges = Gauges::default();
        for collect in self.collect.read().expect("gauges").iter() {
            collect(&mut gauges);
        }
        self.collected.lock().expect("gauges").set(&gauges);
        let mut text = String::with_capacity(16 << 10);
        text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

impl Collected {
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
            "1 while writes are rejected because the disk or the map of an environment is full",
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
            "Used space of an environment of the store",
            Unit::Bytes,
            self.used.clone(),
        );
        registry.register_with_unit(
            "storage_limit",
            "Maximum size of an environment of the store",
            Unit::Bytes,
            self.limit.clone(),
        );
        registry.register(
            "link_shed_messages",
            "Messages dropped for lack of room or credit",
            self.shed.clone(),
        );
        registry.register("link_up", "Whether the link to the peer is up", self.up.clone());
        registry.register_with_unit(
            "link_round_trip",
            "Round trip of the last heartbeat",
            Unit::Seconds,
            self.round_trip.clone(),
        );
        registry.register_with_unit(
            "link_queued",
            "Bytes queued for the peer",
            Unit::Bytes,
            self.queued.clone(),
        );
        registry.register_with_unit(
            "process_cpu",
            "CPU time of the process",
            Unit::Seconds,
            self.cpu.clone(),
        );
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory of the process",
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

/// Numeric levels share one label: their number is up to the user, and the number of labels must be small.
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

/// The outcome as a label: `ok` or the name of an [`quorate_core::error::Error`].
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
    fn a_scrape_includes_all_counters() {
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
    fn every_error_has_its_own_label() {
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
