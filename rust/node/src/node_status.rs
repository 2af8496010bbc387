//! The status of a node, and the requests that it answers without a role.

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
use crate::disk_space;
use crate::fault_control::FaultControl;
use crate::role_registry::RoleRegistry;
use crate::telemetry::Telemetry;

/// Reports the links to the peers.
pub trait Links: Send + Sync {
    /// One entry per peer.
    fn peers(&self) -> Vec<PeerStatus>;

    /// Messages dropped since the start for lack of room or credit.
    fn shed_messages(&self) -> u64;
}

/// Reports the load of the client listener.
pub trait Admission: Send + Sync {
    /// Requests in flight.
    fn in_flight(&self) -> u64;
}

/// The state of a node, for status, metrics and probes.
pub struct NodeStatus {
    /// The node's id.
    pub node: NodeId,
    /// The node's boot.
    pub boot: BootId,
    /// The node's clock; instant 0 is its start.
    pub clock: Arc<Clock>,
    /// The members that this node was started with.
    pub topology: Arc<Topology>,
    /// Its roles.
    pub roles: RoleRegistry,
    /// Its timeline, spans and metrics.
    pub telemetry: Arc<Telemetry>,
    /// The usage of its store.
    pub storage: Gauge,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its links.
    pub links: Arc<dyn Links>,
    /// The faults injected between it and its peers.
    pub faults: FaultControl,
    /// Its client listener.
    pub admission: Arc<dyn Admission>,
    /// Whether it serves requests.
    pub ready: AtomicBool,
    /// Whether the cluster is not yet formed, so that it has no keyspace.
    pub forming: AtomicBool,
}

impl NodeStatus {
    /// Answers a request about the node ([`Target::Node`]).
    ///
    /// # Errors
    /// The errors of a change of faults; [`Error::InvalidArgument`] for a request that a role answers.
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

    /// The status of the node and its peers.
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
            storage: disk_space::status(&self.storage),
        }
    }

    fn keyspaces(&self) -> Vec<String> {
        let table = self.roles.table();
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

    /// Whether the cluster is not yet formed.
    pub fn is_forming(&self) -> bool {
        self.forming.load(Ordering::Acquire)
    }

    /// Adds the gauges of the node's state to the metrics.
    pub fn register_gauges(&self) {
        let (links, admission) = (Arc::clone(&self.links), Arc::clone(&self.admission));
        let (data_dir, storage) = (self.data_dir.clone(), self.storage.clone());
        self.telemetry.metrics().add_gauges(move |gauges| {
            gauges.peers = links.peers();
            gauges.shed_messages = links.shed_messages();
            gauges.in_flight = admission.in_flight();
            gauges.stored_bytes = stored_bytes(&data_dir);
            gauges.storage = disk_space::status(&storage);
        });
    }
}

/// Bytes that the files of a directory occupy on disk. The store's files are sparse, so their length is not used.
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
    fn sparse_files_count_as_the_bytes_that_they_occupy() {
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
