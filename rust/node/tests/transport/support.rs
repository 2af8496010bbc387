//! Transports with a recording node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_node::clock::Clock;
use quorate_node::transport::{
    BoxFuture, Inbound, Incoming, LocalIdentity, PeerIdentity, Transport, TransportConfig,
};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::{Member, Topology};
use quorate_protocol::wire::Envelope;
use quorate_ring::RingSettings;
use tokio::net::TcpListener;

/// The timeout of all waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Events recorded by a node.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) messages: Vec<Incoming>,
    pub(crate) peers: Vec<(NodeId, bool, String)>,
    pub(crate) events: Vec<TimelineEvent>,
}

/// A recording node. Messages stay in `messages` (and keep their credit) while `keep` is set.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) recorded: Mutex<Recorded>,
    pub(crate) keep: std::sync::atomic::AtomicBool,
    pub(crate) received: std::sync::atomic::AtomicU64,
    /// Peers that are admitted only with this data directory.
    pub(crate) admitted: Mutex<BTreeMap<NodeId, ReplicaId>>,
}

impl Inbound for Memory {
    fn deliver(&self, _: NodeId, messages: Vec<Incoming>) {
        use std::sync::atomic::Ordering;
        self.received.fetch_add(messages.len() as u64, Ordering::Relaxed);
        if self.keep.load(Ordering::Relaxed) {
            self.recorded.lock().unwrap().messages.extend(messages);
        }
    }

    fn peer(&self, node: NodeId, up: bool, reason: &str) {
        self.recorded
            .lock()
            .unwrap()
            .peers
            .push((node, up, reason.to_owned()));
    }

    fn admit(&self, peer: PeerIdentity) -> BoxFuture<Result<(), Error>> {
        let known = *self
            .admitted
            .lock()
            .unwrap()
            .entry(peer.node)
            .or_insert(peer.replica);
        Box::pin(async move {
            if known == peer.replica {
                Ok(())
            } else {
                Err(Error::Refused(format!(
                    "{} presented another data directory",
                    peer.node
                )))
            }
        })
    }

    fn event(&self, event: TimelineEvent) {
        self.recorded.lock().unwrap().events.push(event);
    }
}

impl Memory {
    pub(crate) fn received(&self) -> u64 {
        self.received.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A transport and its node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) transport: Transport,
    pub(crate) memory: Arc<Memory>,
    pub(crate) clock: Arc<Clock>,
}

pub(crate) fn topology(addresses: &[(u16, String)]) -> Topology {
    let members = addresses
        .iter()
        .map(|(id, address)| Member {
            id: NodeId(*id),
            peer_address: address.clone(),
            client_address: String::new(),
            http_address: String::new(),
            rack: String::new(),
            datacenter: String::new(),
        })
        .collect();
    Topology::new(ClusterId(7), 1, members, RingSettings::default()).unwrap()
}

pub(crate) fn identity(id: u16, boot: u64) -> LocalIdentity {
    LocalIdentity {
        cluster: ClusterId(7),
        node: NodeId(id),
        replica: ReplicaId::new(NodeId(id), 1),
        boot: BootId(boot),
    }
}

impl Node {
    pub(crate) async fn start(
        config: TransportConfig,
        listener: TcpListener,
        topology: &Topology,
        identity: LocalIdentity,
    ) -> Node {
        let memory = Arc::new(Memory::default());
        let clock = Arc::new(Clock::start());
        let transport = Transport::start(
            config,
            listener,
            topology,
            identity,
            clock.clone(),
            memory.clone(),
        )
        .await
        .unwrap();
        Node {
            id: identity.node,
            transport,
            memory,
            clock,
        }
    }

    pub(crate) fn envelope(&self, request: u64, size: usize) -> Envelope {
        Envelope {
            from: RoleId::Coordinator(KeyspaceId(1)),
            to: RoleId::Replica(KeyspaceId(1)),
            header: Header {
                generation: 1,
                request,
                deadline: self.clock.instant() + Duration::from_secs(60),
                trace: None,
            },
            message: Message::FetchRange {
                start: Bytes::from(vec![request as u8; size]),
                end: Bytes::new(),
                limit: 1,
            },
        }
    }

    pub(crate) fn sees(&self, peer: NodeId) -> bool {
        self.transport
            .status()
            .iter()
            .any(|status| status.node == peer && status.up)
    }
}

/// Listeners at free ports on loopback, and their addresses.
pub(crate) async fn listeners(count: u16) -> (Vec<TcpListener>, Vec<(u16, String)>) {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for id in 1..=count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push((id, listener.local_addr().unwrap().to_string()));
        listeners.push(listener);
    }
    (listeners, addresses)
}

/// Nodes 1 to `count` in this process, all of them connected.
pub(crate) async fn cluster(count: u16, config: &TransportConfig) -> Vec<Node> {
    let (listeners, addresses) = listeners(count).await;
    let topology = topology(&addresses);
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        nodes.push(
            Node::start(
                config.clone(),
                listener,
                &topology,
                identity(id, 1000 + u64::from(id)),
            )
            .await,
        );
    }
    for node in &nodes {
        eventually("every node sees every other", || {
            nodes
                .iter()
                .filter(|other| other.id != node.id)
                .all(|other| node.sees(other.id))
        })
        .await;
    }
    nodes
}

pub(crate) async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.transport.stop().await;
    }
}
