//! The transport, wired to the roles: outgoing and incoming messages.

use std::sync::{Arc, OnceLock};

use quorate_core::error::Error;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_protocol::api::PeerStatus;
use quorate_protocol::role::{Event, RoleId};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::wire::Envelope;
use ractor::ActorRef;

use crate::fatal::{Fatal, FatalError};
use crate::fault_control::FaultInjector;
use crate::inbox::Receipt;
use crate::node_status::Links;
use crate::peer_registry::PeerRegistry;
use crate::role_registry::RoleRegistry;
use crate::rpc_spans::RpcSpans;
use crate::shell::{CommitPort, PeerPort};
use crate::supervisor::SupervisorMessage;
use crate::telemetry::Telemetry;
use crate::transport::{BoxFuture, FaultRules, Inbound, Incoming, PeerIdentity, Transport};

/// The transport, once it is started: roles start before it, and until then all peers are down.
pub struct Peers {
    transport: OnceLock<Arc<Transport>>,
    rpc_spans: Arc<RpcSpans>,
}

impl Peers {
    /// Without a transport yet; RPCs are traced in `rpc_spans`.
    pub fn new(rpc_spans: Arc<RpcSpans>) -> Self {
        Peers {
            transport: OnceLock::new(),
            rpc_spans,
        }
    }

    /// Sets the transport, which starts the sending of messages.
    pub fn open(&self, transport: Arc<Transport>) {
        // A node starts its transport once.
        let _set_once = self.transport.set(transport);
    }

    /// The transport, if it has been started.
    pub fn transport(&self) -> Option<&Arc<Transport>> {
        self.transport.get()
    }
}

impl PeerPort for Peers {
    fn send(&self, to: NodeId, mut messages: Vec<Envelope>) {
        if let Some(transport) = self.transport.get() {
            for Envelope { header, message, .. } in &mut messages {
                self.rpc_spans.on_send(to, header, message);
            }
            transport.send(to, messages);
        }
    }
}

impl Links for Peers {
    fn peers(&self) -> Vec<PeerStatus> {
        self.transport
            .get()
            .map(|transport| transport.status())
            .unwrap_or_default()
    }

    fn shed_messages(&self) -> u64 {
        let links = self
            .transport
            .get()
            .map(|transport| transport.links())
            .unwrap_or_default();
        links.iter().map(|(_, totals)| totals.shed_envelopes).sum()
    }
}

impl FaultInjector for Peers {
    fn inject(&self, rules: &FaultRules) {
        if let Some(transport) = self.transport.get() {
            transport.set_faults(rules);
        }
    }
}

/// The receiver of the transport's events.
pub struct Delivery {
    /// The roles of this node.
    pub roles: RoleRegistry,
    /// The supervisor, which tracks peers that come up and go down.
    pub supervisor: ActorRef<SupervisorMessage>,
    /// The durable registry of peers.
    pub registry: Arc<PeerRegistry>,
    /// The disk.
    pub commits: Arc<dyn CommitPort>,
    /// The timeline.
    pub telemetry: Arc<Telemetry>,
    /// The spans of RPCs.
    pub rpc_spans: Arc<RpcSpans>,
    /// Ends the node when its data directory was lost.
    pub fatal: Fatal,
}

impl Inbound for Delivery {
    fn deliver(&self, _from: NodeId, messages: Vec<Incoming>) {
        let table = self.roles.table();
        let mut by_role: Vec<(RoleId, Vec<Event>, Vec<Receipt>)> = Vec::new();
        let mut last: Option<Arc<crate::transport::Receipt>> = None;
        for Incoming {
            from,
            to,
            mut header,
            message,
            receipt,
        } in messages
        {
            self.rpc_spans.on_receive(from.node, &mut header, &message);
            let known = by_role.iter().position(|(role, _, _)| *role == to);
            let index = known.unwrap_or_else(|| {
                by_role.push((to, Vec::new(), Vec::new()));
                by_role.len() - 1
            });
            let (_, events, receipts) = &mut by_role[index];
            events.push(Event::Message {
                from,
                header,
                message,
            });
            // The messages of one batch share a receipt: a role holds it once.
            if known.is_none() || last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &receipt)) {
                receipts.push(Arc::clone(&receipt) as Receipt);
            }
            last = Some(receipt);
        }
        for (role, events, receipts) in by_role {
            match table.role(role) {
                Some(mailbox) => mailbox.deliver(events, receipts),
                // Dropped, as by a lossy network: the sender has a deadline.
                None => tracing::debug!(?role, messages = events.len(), "no such role here"),
            }
        }
    }

    fn peer(&self, node: NodeId, up: bool, _reason: &str) {
        // If the supervisor has ended, so has the node.
        let _gone = self.supervisor.cast(SupervisorMessage::Peer { node, up });
    }

    fn admit(&self, peer: PeerIdentity) -> BoxFuture<Result<(), Error>> {
        let (registry, commits) = (Arc::clone(&self.registry), Arc::clone(&self.commits));
        Box::pin(async move {
            let admitted = registry.admit(peer.node, peer.replica, &*commits).await;
            if let Err(error) = &admitted {
                tracing::error!(peer = %peer.node, replica = %peer.replica, %error, "a peer was not admitted");
            }
            admitted
        })
    }

    fn known(&self, node: NodeId) -> Option<ReplicaId> {
        self.registry.replica_of(node)
    }

    fn disowned(&self, _peer: NodeId, reason: &str) {
        self.fatal.raise(FatalError::Disowned(reason.to_owned()));
    }

    fn event(&self, event: TimelineEvent) {
        self.telemetry.emit(event);
    }
}
