//! The transport between nodes: ractor_cluster sessions, driven by one link per peer.
//!
//! The path of a role's message to another node: [`Transport::send`], the peer's inbox, its link actor (which runs the pure
//! [`Link`](quorate_protocol::link::Link): lanes, credit, batches), ractor_cluster, our own stream; and at the other
//! end: ractor_cluster, the gateway actor, the link actor, [`Inbound::deliver`].
//!
//! ```text
//! transport supervisor
//! ├── node server (ractor_cluster, isolated, without a listener of its own)
//! │   └── node session, one per connection: authentication, the remote gateway
//! ├── gateway: the one remotable actor of this node; dispatches batches to links
//! ├── listener: accepts connections, performs the handshake, starts sessions
//! ├── dialler, one per peer with a higher id: connects, performs the handshake, starts the session; retries with backoff
//! └── link, one per peer
//! ```
//! Listener, diallers and links have no durable state, so they are restarted when they fail. The failure of another
//! actor ends the supervisor.
//!
//! # What ractor_cluster lacks, and where it is implemented
//! * It never reconnects: the **dialler** of a pair, the node with the lower id, does, after 10 ms to 1 s.
//! * Its listener accepts anyone and has no timeout: ours requires a **hello** of bounded size within a deadline, and
//!   rejects other clusters, unknown nodes, other ring settings and members, foreign data directories and past boots with
//!   an error. The listener that it always starts (on loopback, at a free port) is closed before the transport is ready.
//! * Authentication has no deadline: a session that is not ready in time is closed.
//! * It never detects a stopped process: the link closes a session on its idle timeout; `TCP_USER_TIMEOUT` closes a
//!   connection with unacknowledged data.
//! * A half-open session of the same name may win against the new one: names include the **boot**, so a restarted node has
//!   another name; and a second connection of the same boot is accepted only when the first one is idle.
//! * All its queues are unbounded: the **stream** is ours, so it reports when a batch is sent (the link then makes the
//!   next one) and stops reading while too many batches are unhandled. So credit and the link's lanes bound all queues.
//! * It panics on malformed messages: the gateway's only message is bytes, which the link decodes fallibly.
//!
//! # Faults
//! [`Transport::set_faults`] injects faults into what this node sends to a peer: block, message loss, delay. Each
//! direction is controlled by its sender. Clients set them through [`crate::fault_control`].

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

/// The identity of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// Its boot.
    pub boot: BootId,
}

/// The identity that a peer presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its id.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// Its boot.
    pub boot: BootId,
    /// Its topology generation.
    pub generation: u64,
}

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The receiver of the transport's events. No method may block.
pub trait Inbound: Send + Sync + 'static {
    /// Messages arrived.
    fn deliver(&self, from: NodeId, messages: Vec<Incoming>);

    /// The peer became reachable (`reason` is empty) or unreachable.
    fn peer(&self, node: NodeId, up: bool, reason: &str);

    /// Admits or rejects a peer: called at both ends for each connection, before messages are exchanged. The durable peer
    /// registry rejects a known node with another data directory.
    fn admit(&self, peer: PeerIdentity) -> BoxFuture<Result<(), Error>>;

    /// The registered data directory of the peer, if any: from the durable peer registry.
    fn known(&self, _node: NodeId) -> Option<ReplicaId> {
        None
    }

    /// A peer that is not registered in this node's data directory knows this node with another one: the node's own was
    /// lost or replaced, and no peer that has registered it will ever accept a session.
    fn disowned(&self, _peer: NodeId, _reason: &str) {}

    /// An event for the timeline.
    fn event(&self, event: TimelineEvent);
}

/// A message that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// The sender.
    pub from: Address,
    /// The role that receives it.
    pub to: RoleId,
    /// The header, with the deadline in this process's time.
    pub header: Header,
    /// The message.
    pub message: Message,
    /// Dropped when the role has taken the message; the messages of one batch share it.
    pub receipt: Arc<Receipt>,
}

/// Counters of the transport, besides those of [`Transport::links`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportTotals {
    /// Accepted connections.
    pub accepted: u64,
    /// Connections that sent a malformed hello, or timed out.
    pub garbage: u64,
    /// Hellos that were rejected, here or by a peer.
    pub refused: u64,
    /// Sessions that became ready.
    pub sessions: u64,
    /// Sessions that timed out before they were ready.
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
    #[error(
        "{0} is not a member of the topology: add it to the members, or start it with the id of a member"
    )]
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

/// The shared state of all actors of the transport.
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
    /// Limits events about unauthenticated connections: a flood of them must not displace other events in log and timeline.
    rejections: Limiter,
    stopping: AtomicBool,
}

/// Rate limiter: passes one event per interval.
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
            rejections: Limiter::default(),
            stopping: AtomicBool::new(false),
        });
        let supervisor = transport_supervisor::start(core.clone(), listener).await?;
        Ok(Transport { core, supervisor })
    }

    /// Sends messages to a peer: at most once, in any order, and dropped beyond the bounds of its lanes. Never blocks.
    /// Messages to a node that is not a peer are dropped.
    pub fn send(&self, to: NodeId, envelopes: Vec<Envelope>) {
        match self.core.peers.get(&to) {
            Some(peer) => peer.enqueue(envelopes),
            None => tracing::warn!(%to, "message to a node that is not a peer"),
        }
    }

    /// The status of the peers, in ascending order.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.core.peers.values().map(|peer| peer.status()).collect()
    }

    /// The counters of each link, in ascending order of peers.
    pub fn links(&self) -> Vec<(NodeId, LinkTotals)> {
        self.core
            .peers
            .values()
            .map(|peer| (peer.node, peer.totals()))
            .collect()
    }

    /// The counters of the transport.
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

    /// Injects faults into what this node sends; replaces all earlier rules.
    pub fn set_faults(&self, rules: &FaultRules) {
        for (node, peer) in &self.core.peers {
            peer.faults.set(rules.get(*node));
            for session in peer.sessions() {
                session.stream.unpark();
            }
        }
    }

    /// Ends all sessions and actors and closes the listener. Pending messages are dropped.
    pub async fn stop(&self) {
        transport_supervisor::stop(&self.core, &self.supervisor).await;
    }
}

#[cfg(test)]
mod tests;
