//! A host, its disk, and its process.

use std::collections::BTreeMap;

use quorate_core::ids::{BootId, NodeId, ReplicaId};
use quorate_core::time::Instant;
use quorate_protocol::admission::{InFlight, Totals};
use quorate_protocol::link::{Link, SessionId as LinkSessionId};
use quorate_protocol::role::{RoleId, Spec};
use quorate_roles::Instance;

use super::QueuedEvent;
use super::clock::Clock;
use super::listener::Connection;
use super::peers::Peer;
use crate::disk::Disk;
use crate::network::SessionId;
use crate::record::Hosted;
use crate::rng::SimRng;

/// The state of a host, which survives a crash, and its process, which does not.
pub(super) struct Machine {
    pub(super) replica: ReplicaId,
    pub(super) disk: Disk,
    /// How far the wall clock is ahead, in microseconds.
    pub(super) skew_micros: i64,
    /// How much faster the monotonic clock runs, in percent.
    pub(super) drift_percent: i8,
    pub(super) process: Option<Process>,
    /// The missed events, while the process is paused.
    pub(super) paused: Option<Vec<QueuedEvent>>,
}

impl Machine {
    pub(super) fn new(node: NodeId, replica: ReplicaId, rng: SimRng) -> Self {
        assert_eq!(replica.node(), node);
        Machine {
            replica,
            disk: Disk::new(rng),
            skew_micros: 0,
            drift_percent: 0,
            process: None,
            paused: None,
        }
    }
}

/// A process of a node: the state that a crash loses.
pub(super) struct Process {
    pub(super) boot: BootId,
    pub(super) clock: Clock,
    pub(super) roles: BTreeMap<RoleId, RoleHost>,
    /// The specs of the last reconciliation.
    pub(super) specs: Vec<Spec>,
    pub(super) last_instance: u32,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// The connection of each link session.
    pub(super) carriers: BTreeMap<LinkSessionId, SessionId>,
    pub(super) ports: BTreeMap<SessionId, Port>,
    pub(super) connections: BTreeMap<u64, SessionId>,
    pub(super) last_connection: u64,
    /// Pending requests of clients, by connection.
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) totals: Totals,
    /// The last number of a timer setting, to detect replaced timers.
    pub(super) last_set: u64,
}

impl Process {
    pub(super) fn new(boot: BootId, clock: Clock) -> Self {
        Process {
            boot,
            clock,
            roles: BTreeMap::new(),
            specs: Vec::new(),
            last_instance: 0,
            peers: BTreeMap::new(),
            carriers: BTreeMap::new(),
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            in_flight: BTreeMap::new(),
            totals: Totals::default(),
            last_set: 0,
        }
    }

    /// The role with this instance number, if it still exists.
    pub(super) fn role_of(&self, instance: u32) -> Option<RoleId> {
        self.roles
            .iter()
            .find(|(_, host)| host.instance == instance)
            .map(|(role, _)| *role)
    }

    pub(super) fn link(&self, peer: NodeId) -> Option<&Link> {
        self.peers.get(&peer).map(|peer| peer.link.role())
    }

    /// Bytes queued for peers.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.peers
            .values()
            .map(|peer| peer.link.role().queued_bytes())
            .sum()
    }

    pub(super) fn next_set(&mut self) -> u64 {
        self.last_set += 1;
        self.last_set
    }
}

/// A role instance and the timers it has set.
pub(super) struct RoleHost {
    /// Never reused within a process.
    pub(super) instance: u32,
    pub(super) hosted: Hosted<Instance>,
    /// The current setting of each timer, and when it is due by the node's clock.
    pub(super) timers: BTreeMap<u64, (u64, Instant)>,
}

/// The state of a connection of a node.
pub(super) enum Port {
    /// Dialled; not yet accepted.
    Dialling { peer: NodeId },
    /// The hello was sent.
    Greeting { peer: NodeId },
    /// Accepted; the hello is awaited.
    Arriving,
    /// Carries a session of the link to this peer.
    Link {
        peer: NodeId,
        session: LinkSessionId,
        /// Whether the hello was sent. Its notice precedes those of the batches and is not for the link.
        hello_out: bool,
    },
    /// A client's.
    Client(Connection),
}
