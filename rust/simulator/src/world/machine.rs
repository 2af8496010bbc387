//! A host, its disk, and the process that may be running on it.

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

/// What survives a crash, and what does not.
pub(super) struct Machine {
    pub(super) replica: ReplicaId,
    pub(super) disk: Disk,
    /// How far the wall clock is ahead, in microseconds.
    pub(super) skew_micros: i64,
    /// How much faster the monotonic clock goes than time does, in percent.
    pub(super) drift_percent: i8,
    pub(super) process: Option<Process>,
    /// While the process stands still: what it has missed.
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

/// One run of a node's program: all that a crash takes.
pub(super) struct Process {
    pub(super) boot: BootId,
    pub(super) clock: Clock,
    pub(super) roles: BTreeMap<RoleId, RoleHost>,
    /// What the node role last asked for.
    pub(super) specs: Vec<Spec>,
    pub(super) last_instance: u32,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Which connection carries a link's session.
    pub(super) carriers: BTreeMap<LinkSessionId, SessionId>,
    pub(super) ports: BTreeMap<SessionId, Port>,
    pub(super) connections: BTreeMap<u64, SessionId>,
    pub(super) last_connection: u64,
    /// Requests of clients that have not been answered, by connection.
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) totals: Totals,
    /// For timers: tells one from another that replaced it.
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

    /// Bytes that wait for peers.
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
    /// Which setting of each timer counts, and when it is due by the node's clock.
    pub(super) timers: BTreeMap<u64, (u64, Instant)>,
}

/// What a connection of a node is for.
pub(super) enum Port {
    /// Dialled; not yet accepted.
    Dialling { peer: NodeId },
    /// Our hello is out.
    Greeting { peer: NodeId },
    /// Accepted from a node that has not said hello yet.
    Arriving,
    /// Carries a session of the link to this peer.
    Link {
        peer: NodeId,
        session: LinkSessionId,
        /// Whether our hello has left it. That notice comes before those of the batches and is not for the link.
        hello_out: bool,
    },
    /// A client's.
    Client(Connection),
}
