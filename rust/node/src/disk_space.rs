//! Disk space: reports a full disk, and its recovery.
//!
//! The roles answer clients and emit [`StorageFull`](TimelineEvent::StorageFull); they do not know where the disk is and
//! how to free space. This module adds that, and emits the recovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_protocol::api::{EnvironmentStatus, StorageStatus};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_storage::StateWrite;
use quorate_storage::lmdb::{Extent, Gauge};
use quorate_storage::queue::Request;
use quorate_storage::thread::{ApplyReport, CommitReport, Observer};

use crate::role_registry::Owner;
use crate::shell::CommitPort;
use crate::telemetry::Telemetry;

/// A [`CommitPort`] that explains why the disk is full.
pub struct DiskSpacePort {
    /// The port to submit to.
    pub to: Arc<dyn CommitPort>,
    /// How full the store is.
    pub gauge: Gauge,
}

impl CommitPort for DiskSpacePort {
    fn submit(&self, requests: Vec<Request>) {
        self.to.submit(requests);
    }

    fn apply_rows(&self, owner: Owner, token: u64, writes: Vec<StateWrite>) {
        self.to.apply_rows(owner, token, writes);
    }

    fn why_full(&self) -> Option<String> {
        self.gauge.full_reason()
    }
}

/// The status of the store.
pub fn status(gauge: &Gauge) -> StorageStatus {
    let Some(usage) = gauge.read() else {
        return StorageStatus::default();
    };
    let environment = |name: &str, extent: Extent| EnvironmentStatus {
        name: name.to_owned(),
        used_bytes: extent.used_bytes,
        limit_bytes: extent.limit_bytes,
    };
    StorageStatus {
        full: usage.full,
        available_bytes: usage.available_bytes,
        environments: vec![
            environment("journal", usage.journal),
            environment("state", usage.state),
        ],
    }
}

/// Reports when the disk becomes full and when it recovers; passes reports on to another observer.
pub struct DiskSpaceObserver {
    inner: Arc<dyn Observer>,
    gauge: Gauge,
    telemetry: Arc<Telemetry>,
    was_full: AtomicBool,
}

impl DiskSpaceObserver {
    /// Observes a store that has room.
    pub fn new(inner: Arc<dyn Observer>, gauge: Gauge, telemetry: Arc<Telemetry>) -> Self {
        DiskSpaceObserver {
            inner,
            gauge,
            telemetry,
            was_full: AtomicBool::new(false),
        }
    }

    fn check(&self) {
        let full = self.gauge.has_refused();
        let before = self.was_full.swap(full, Ordering::AcqRel);
        match (before, full) {
            (false, true) => {
                let why = self.gauge.full_reason().unwrap_or_default();
                tracing::error!(why, "the disk is full: writes are rejected");
            }
            (true, false) => self.telemetry.emit(TimelineEvent::StorageRecovered),
            _ => {}
        }
    }
}

impl Observer for DiskSpaceObserver {
    fn committed(&self, report: &CommitReport) {
        self.inner.committed(report);
        self.check();
    }

    fn applied(&self, report: &ApplyReport) {
        self.inner.applied(report);
        self.check();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use quorate_core::ids::NodeId;
    use quorate_core::store::{JournalOp, StateWrite, Table};
    use quorate_storage::datadir::DataDir;
    use quorate_storage::lmdb::{LmdbStore, Options};
    use quorate_storage::queue::Outcome;
    use quorate_storage::store::Store;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn recovery_of_a_full_disk_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let probe = Arc::clone(&free);
        let options = Options {
            space: Arc::new(move |_| Ok(probe.load(Ordering::SeqCst))),
            ..Options::default()
        };
        let dir = DataDir::open(directory.path()).unwrap();
        let mut store = LmdbStore::open(&dir, &options).unwrap();
        let telemetry = Arc::new(Telemetry::new(Arc::new(Clock::start()), NodeId(1), 1, 16, 16));
        let observer = DiskSpaceObserver::new(Arc::new(()), store.gauge(), Arc::clone(&telemetry));
        let row = JournalOp::Write(vec![StateWrite {
            table: Table::Records,
            key: "key".into(),
            value: Some("value".into()),
        }]);
        for (bytes, outcome, events) in [
            (u64::MAX, Outcome::Durable, vec![]),
            (0, Outcome::Full, vec![]),
            (0, Outcome::Full, vec![]),
            (u64::MAX, Outcome::Durable, vec![TimelineEvent::StorageRecovered]),
            (u64::MAX, Outcome::Durable, vec![TimelineEvent::StorageRecovered]),
        ] {
            free.store(bytes, Ordering::SeqCst);
            let committed = store.commit(std::slice::from_ref(&row));
            assert_eq!(committed.is_ok(), outcome == Outcome::Durable);
            observer.committed(&CommitReport {
                requests: 1,
                bytes: 8,
                started: Instant::now(),
                duration: Duration::ZERO,
                outcome,
            });
            let seen: Vec<_> = telemetry
                .events_after(0)
                .into_iter()
                .map(|seen| seen.event)
                .collect();
            assert_eq!(seen, events);
            assert_eq!(status(&store.gauge()).full.is_some(), outcome == Outcome::Full);
        }
    }
}
