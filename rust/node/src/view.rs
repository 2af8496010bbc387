//! What a node says about itself when it is asked: no role is needed for that.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_core::error::Error;
use quorate_core::ids::{BootId, NodeId};
use quorate_protocol::api::{PeerStatus, Request, Response, Status};
use quorate_protocol::topology::Topology;
use quorate_storage::lmdb::Gauge;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::faults::FaultDesk;
use crate::fullness;
use crate::telemetry::Telemetry;

/// Answers how the links to the peers are.
pub trait Links: Send + Sync {
    /// One entry per peer.
    fn peers(&self) -> Vec<PeerStatus>;

    /// Messages that were dropped for want of room or credit, since the start.
    fn shed_messages(&self) -> u64;
}

/// Answers what the client listener is doing.
pub trait Admission: Send + Sync {
    /// Requests in flight.
    fn in_flight(&self) -> u64;
}

/// A node as it sees itself.
pub struct NodeView {
    /// Which node.
    pub node: NodeId,
    /// Which boot of it.
    pub boot: BootId,
    /// Its time; instant 0 is its start.
    pub clock: Arc<Clock>,
    /// The members, as this node was told when it started.
    pub topology: Arc<Topology>,
    /// Its roles.
    pub directory: Directory,
    /// Its timeline, spans and metrics.
    pub telemetry: Arc<Telemetry>,
    /// How full its store is.
    pub storage: Gauge,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its links.
    pub links: Arc<dyn Links>,
    /// What people have broken between it and its peers.
    pub faults: FaultDesk,
    /// Its clients.
    pub admission: Arc<dyn Admission>,
    /// Whether it serves requests.
    pub ready: AtomicBool,
    /// Whether the cluster is not formed yet, so that there is no keyspace.
    pub forming: AtomicBool,
}

impl NodeView {
    /// The answer to a request about the node ([`Target::Node`]).
    ///
    /// # Errors
    /// Those of a change of faults; [`Error::InvalidArgument`] for a request that is another's to answer.
    pub fn answer(&self, request: Request) -> Result<Response, Error> {
        Ok(match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Events { after } => Response::Events(self.telemetry.events_after(after)),
            Request::Spans { trace_id } => Response::Spans(self.telemetry.spans_of(trace_id)),
            Request::Metrics => Response::Metrics(self.telemetry.metrics().render()),
            Request::Groups => Response::Groups(self.telemetry.claims(self.clock.instant())),
            Request::Faults => Response::Faults(self.faults.in_force()),
            Request::ChangeFaults(change) => Response::Faults(self.faults.change(&change)?),
            Request::Put { .. }
            | Request::Get { .. }
            | Request::PutMany { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership => return Err(Error::invalid("unsupported request")),
        })
    }

    /// The node's own view of itself and its peers.
    pub fn status(&self) -> Status {
        Status {
            node: self.node,
            boot: self.boot,
            uptime_seconds: self.clock.instant().0 / 1_000_000,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.telemetry.generation(),
            peers: self.links.peers(),
            keyspaces: self.keyspaces(),
            data_directory: self.data_dir.display().to_string(),
            stored_bytes: stored_bytes(&self.data_dir),
            in_flight: self.admission.in_flight(),
            storage: fullness::status(&self.storage),
        }
    }

    fn keyspaces(&self) -> Vec<String> {
        let table = self.directory.table();
        table
            .keyspaces()
            .values()
            .map(|settings| settings.name.clone())
            .collect()
    }

    /// Whether it serves requests.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the cluster is not formed yet.
    pub fn is_forming(&self) -> bool {
        self.forming.load(Ordering::Acquire)
    }

    /// Adds what the node knows about its state to the metrics.
    pub fn register_gauges(&self) {
        let (links, admission) = (Arc::clone(&self.links), Arc::clone(&self.admission));
        let (data_dir, storage) = (self.data_dir.clone(), self.storage.clone());
        self.telemetry.metrics().add_gauges(move |gauges| {
            gauges.peers = links.peers();
            gauges.shed_messages = links.shed_messages();
            gauges.in_flight = admission.in_flight();
            gauges.stored_bytes = stored_bytes(&data_dir);
            gauges.storage = fullness::status(&storage);
        });
    }
}

/// Bytes that the files of a directory occupy on disk. The store's files are sparse: their length says nothing.
fn stored_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() {
            stored_bytes(&entry.path())
        } else {
            metadata.blocks() * 512
        })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_files_count_as_what_they_occupy() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::File::create(inner.join("sparse"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        std::fs::write(inner.join("full"), vec![1; 100_000]).unwrap();
        let bytes = stored_bytes(directory.path());
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
    }
}
