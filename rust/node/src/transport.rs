//! The way to the other nodes: ractor_cluster sessions, driven by one link per peer.
//!
//! A role's message to another node goes: [`Transport::send`], the peer's inbox, its link actor (which runs the pure
//! [`Link`](quorate_protocol::link::Link): lanes, credit, batches), ractor_cluster, our own stream; and at the other
//! end: ractor_cluster, the gateway actor, the link actor, [`Inbound::deliver`].
//!
//! ```text
//! transport supervisor
//! ├── node server (ractor_cluster, isolated, without a listener of its own)
//! │   └── node session, one per connection: authentication, the remote gateway
//! ├── gateway: the one remotable actor of this node; takes batches and hands them to links
//! ├── listener: accepts, says hello, hands connections over
//! ├── dialler, one per peer with a higher number: connects, says hello, hands over; again after a pause
//! └── link, one per peer
//! ```
//! Listener, diallers and links keep no promises, so they are started again when they fail. The failure of another
//! actor ends the supervisor.
//!
//! # What ractor_cluster does not do, and where it is done
//! * It never reconnects: the **dialler** of a pair, the node with the lower number, does, after 10 ms to 1 s.
//! * Its listener takes anybody and waits for ever: ours demands a **hello** within a deadline, of bounded size, and
//!   refuses other clusters, unknown nodes, other ring settings and members, foreign data directories and past boots
//!   in words. The one that it insists on
//!   starting (on loopback, at a free port) is closed before the transport is ready.
//! * Authentication has no deadline: a session that is not ready in time is closed.
//! * It never notices a stopped process: the link closes a session on which nothing arrives; `TCP_USER_TIMEOUT` ends
//!   a connection whose data nobody confirms.
//! * A half-open session of the same name may win against the new one: names carry the **boot**, so a restarted node is
//!   somebody else; and a second connection of the same boot is taken only when the first one has fallen silent.
//! * All its queues are unbounded: the **stream** is ours, so we know when a batch has left (the link then makes the
//!   next one) and stop reading while too many batches wait to be handled. So credit and the link's lanes bound everything.
//! * It decodes messages by panicking: the gateway's only message is bytes, which the link reads fallibly.
//!
//! # Faults
//! [`Transport::set_faults`] spoils what this node sends to a peer: nothing passes, messages are lost, everything is
//! late. Each direction is spoiled by its sender. Clients ask for it through [`crate::fault_control`].

mod config;
mod dialler;
mod faults;
mod gateway;
mod handshake;
mod link_actor;
mod listener;
mod meter;
mod peer;
mod sessions;
mod stream;
mod transport_supervisor;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId, ReplicaId};
use quorate_core::time::Instant;
use quorate_protocol::api::PeerStatus;
use quorate_protocol::link::LinkTotals;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, RoleId};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::Topology;
use quorate_protocol::wire::{Envelope, Layout};
use ractor::{ActorRef, SpawnErr};
use tokio::net::TcpListener;

use crate::clock::Clock;
pub use config::TransportConfig;
use peer::Peer;
use sessions::Sessions;
use transport_supervisor::SupervisorMessage;

pub use faults::{Fault, FaultRules};
pub use peer::Receipt;

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// This run of it.
    pub boot: BootId,
}

/// Who a peer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// This run of it.
    pub boot: BootId,
    /// The topology generation it is in.
    pub generation: u64,
}

/// A future in a box.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the transport tells the node. Nothing of it may block.
pub trait Inbound: Send + Sync + 'static {
    /// Messages arrived.
    fn deliver(&self, from: NodeId, messages: Vec<Incoming>);

    /// The peer can be reached from now on (`reason` is empty), or cannot any longer.
    fn peer(&self, node: NodeId, up: bool, reason: &str);

    /// Whether to talk to this peer at all: called at both ends for each connection, before anything is exchanged. The
    /// durable peer registry answers here, refusing a known node that comes with another data directory.
    fn admit(&self, peer: PeerIdentity) -> BoxFuture<Result<(), Error>>;

    /// The data directory that this node knows the peer by, if they have met: from the durable peer registry.
    fn known(&self, _node: NodeId) -> Option<ReplicaId> {
        None
    }

    /// The peer, which this node has not met in its present data directory, knows the node by another one: the node's
    /// own was lost or replaced, and no peer that has met it will ever have a session with it.
    fn disowned(&self, _peer: NodeId, _reason: &str) {}

    /// For the timeline.
    fn event(&self, event: TimelineEvent);
}

/// A message that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Who sent it.
    pub from: Address,
    /// For which role of this node.
    pub to: RoleId,
    /// Its deadline is in this process's time.
    pub header: Header,
    /// What it says.
    pub message: Message,
    /// To be dropped when the role has taken the message; the messages of one batch share it.
    pub receipt: Arc<Receipt>,
}

/// What has happened so far, besides what [`Transport::links`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportTotals {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that sent something else than a hello, or nothing in time.
    pub garbage: u64,
    /// Hellos that were refused, here or by a peer.
    pub refused: u64,
    /// Sessions that became ready.
    pub sessions: u64,
    /// Sessions that were not ready in time.
    pub unauthenticated: u64,
    /// Batches that belonged to no session.
    pub stray_batches: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    garbage: AtomicU64,
    refused: AtomicU64,
    sessions: AtomicU64,
    unauthenticated: AtomicU64,
    stray_batches: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// This node is not in the topology.
    #[error("{0} is not a member of the topology: list it, or start it under an id that is listed")]
    NotAMember(NodeId),
    /// An actor did not start.
    #[error("cannot start the transport: {0}")]
    Actor(String),
}

impl From<SpawnErr> for TransportError {
    fn from(error: SpawnErr) -> Self {
        TransportError::Actor(error.to_string())
    }
}

/// What all actors of the transport share.
struct Core {
    config: TransportConfig,
    local: LocalIdentity,
    generation: u64,
    layout: Layout,
    clock: Arc<Clock>,
    inbound: Arc<dyn Inbound>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    sessions: Sessions,
    counters: Counters,
    /// What strangers are worth: a flood of them must not push everything else out of the log and the timeline.
    strangers: Limiter,
    stopping: AtomicBool,
}

/// Lets one thing pass in each interval.
#[derive(Default)]
struct Limiter {
    last: AtomicU64,
}

impl Limiter {
    const INTERVAL: Duration = Duration::from_millis(100);

    fn passes(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        (last == 0 || now.since(Instant(last)) >= Self::INTERVAL)
            && self
                .last
                .compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Core {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The running transport of one node.
pub struct Transport {
    core: Arc<Core>,
    supervisor: ActorRef<SupervisorMessage>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("local", &self.core.local)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Starts the transport of `identity` to the other members of `topology`; peers connect through `listener`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn start(
        config: TransportConfig,
        listener: TcpListener,
        topology: &Topology,
        identity: LocalIdentity,
        clock: Arc<Clock>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Transport, TransportError> {
        if topology.member(identity.node).is_none() {
            return Err(TransportError::NotAMember(identity.node));
        }
        let peers = topology
            .members
            .iter()
            .filter(|member| member.id != identity.node)
            .map(|member| {
                (
                    member.id,
                    Arc::new(Peer::new(member.id, member.peer_address.clone())),
                )
            })
            .collect();
        let core = Arc::new(Core {
            config,
            local: identity,
            generation: topology.generation,
            layout: Layout::of(topology),
            clock,
            inbound,
            peers,
            sessions: Sessions::default(),
            counters: Counters::default(),
            strangers: Limiter::default(),
            stopping: AtomicBool::new(false),
        });
        let supervisor = transport_supervisor::start(core.clone(), listener).await?;
        Ok(Transport { core, supervisor })
    }

    /// Sends messages to a peer: at most once, in no promised order, and dropped beyond the bounds of its lanes.
    /// Never waits. Messages to a node that is no peer are dropped.
    pub fn send(&self, to: NodeId, envelopes: Vec<Envelope>) {
        match self.core.peers.get(&to) {
            Some(peer) => peer.enqueue(envelopes),
            None => tracing::warn!(%to, "message to a node that is no peer"),
        }
    }

    /// How this node sees its peers, in ascending order.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.core.peers.values().map(|peer| peer.status()).collect()
    }

    /// What each link has done, in ascending order of peers.
    pub fn links(&self) -> Vec<(NodeId, LinkTotals)> {
        self.core
            .peers
            .values()
            .map(|peer| (peer.node, peer.totals()))
            .collect()
    }

    /// What the transport has done beside that.
    pub fn totals(&self) -> TransportTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.core.counters;
        TransportTotals {
            accepted: read(&counters.accepted),
            garbage: read(&counters.garbage),
            refused: read(&counters.refused),
            sessions: read(&counters.sessions),
            unauthenticated: read(&counters.unauthenticated),
            stray_batches: read(&counters.stray_batches),
        }
    }

    /// Spoils what this node sends from now on; replaces all earlier rules.
    pub fn set_faults(&self, rules: &FaultRules) {
        for (node, peer) in &self.core.peers {
            peer.faults.set(rules.get(*node));
            for session in peer.sessions() {
                session.stream.unpark();
            }
        }
    }

    /// Ends all sessions and actors and closes the listener. Messages that wait are dropped.
    pub async fn stop(&self) {
        transport_supervisor::stop(&self.core, &self.supervisor).await;
    }
}

#[cfg(test)]
mod tests;
