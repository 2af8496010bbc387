//! The connections after their handshake, and the events of ractor_cluster about them.
//!
//! The node server identifies a session by the label of its stream, which is the session id in hexadecimal. Its events
//! arrive here: a session that is authenticated and has the peer's actors is **ready**, and its link receives the peer's
//! gateway; a session that has ended is removed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use quorate_core::ids::BootId;
use quorate_protocol::link::SessionId;
use ractor::{ActorCell, ActorId, ActorRef};
use ractor_cluster::node::{NodeServerSessionInformation, NodeSessionMessage};
use ractor_cluster::{ClusterBidiStream, NodeEventSubscription, NodeServerMessage};
use tokio::net::TcpStream;

use super::peer::Peer;
use super::stream::{PeerStream, StreamControl};
use super::{Core, PeerIdentity, count};

/// One connection after its handshake.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) boot: BootId,
    pub(super) peer: Arc<Peer>,
    /// The id of the peer's gateway actor.
    gateway: u64,
    pub(super) stream: Arc<StreamControl>,
    /// The actor that runs it; set once ractor_cluster reports it.
    actor: OnceLock<ActorRef<NodeSessionMessage>>,
    ready: AtomicBool,
}

impl Session {
    /// Closes the session. The peer and its link are notified when it has ended.
    pub(super) fn close(&self, reason: &str) {
        self.stream.close(reason);
        if let Some(actor) = self.actor.get() {
            actor.stop(Some(reason.to_owned()));
        }
    }

    /// Whether this side has not closed it.
    pub(super) fn is_open(&self) -> bool {
        self.stream.reason().is_none()
    }

    pub(super) fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// All sessions of this node, and the server that runs them.
#[derive(Default)]
pub(super) struct Sessions {
    all: RwLock<BTreeMap<SessionId, Arc<Session>>>,
    server: OnceLock<ActorRef<NodeServerMessage>>,
    gateway: OnceLock<u64>,
}

impl Sessions {
    pub(super) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.all.read().expect("sessions").get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.all.read().expect("sessions").values().cloned().collect()
    }

    /// Sets the node server and the gateway.
    pub(super) fn serve(&self, server: ActorRef<NodeServerMessage>, gateway: &ActorCell) {
        let set = self.server.set(server).is_ok() && self.gateway.set(gateway.get_id().pid()).is_ok();
        assert!(set, "the transport starts once");
    }

    /// The id of this node's gateway actor.
    pub(super) fn gateway(&self) -> u64 {
        *self
            .gateway
            .get()
            .expect("the gateway starts before the first handshake")
    }

    fn of(&self, information: &NodeServerSessionInformation) -> Option<Arc<Session>> {
        let id = u64::from_str_radix(&information.peer_addr, 16).ok()?;
        self.get(SessionId(id))
    }
}

/// The name of a node in ractor_cluster's authentication.
pub(super) fn session_name(node: quorate_core::ids::NodeId, boot: BootId) -> (String, String) {
    (node.to_string(), format!("{:016x}", boot.0))
}

impl Core {
    /// Registers the session `id` with `identity` on this connection; [`Core::run_session`] starts it. Its batches are
    /// accepted from now on.
    pub(super) fn open_session(
        self: &Arc<Self>,
        stream: TcpStream,
        id: SessionId,
        peer: &Arc<Peer>,
        identity: PeerIdentity,
        gateway: u64,
    ) -> std::io::Result<(PeerStream, Arc<Session>)> {
        let out = peer.clone();
        let on_sent = Box::new(move || out.sent(id));
        let label = format!("{:016x}", id.0);
        let (stream, control) = PeerStream::new(stream, label, peer.faults.clone(), on_sent)?;
        let session = Arc::new(Session {
            id,
            boot: identity.boot,
            peer: peer.clone(),
            gateway,
            stream: control,
            actor: OnceLock::new(),
            ready: AtomicBool::new(false),
        });
        self.sessions
            .all
            .write()
            .expect("sessions")
            .insert(id, session.clone());
        peer.add_session(session.clone());
        Ok((stream, session))
    }

    /// Passes the connection to ractor_cluster, and closes it if the session is not ready in time.
    pub(super) fn run_session(self: &Arc<Self>, stream: PeerStream, session: Arc<Session>, accepted: bool) {
        let opened = NodeServerMessage::ConnectionOpenedExternal {
            stream: Box::new(stream) as Box<dyn ClusterBidiStream>,
            is_server: accepted,
        };
        let server = self.sessions.server.get().expect("the node server starts first");
        if server.cast(opened).is_err() {
            self.end_session(&session, "the node is stopping");
            return;
        }
        let core = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(core.config.authentication).await;
            if !session.ready() && core.sessions.get(session.id).is_some() {
                count(&core.counters.unauthenticated);
                tracing::warn!(peer = %session.peer.node, "authentication of a session timed out: check that the secrets match");
                core.end_session(&session, "authentication timed out");
            }
        });
    }

    /// Closes a session and removes it.
    pub(super) fn end_session(&self, session: &Session, reason: &str) {
        session.close(reason);
        self.forget_session(session.id, reason);
    }

    pub(super) fn forget_session(&self, id: SessionId, otherwise: &str) {
        let removed = self.sessions.all.write().expect("sessions").remove(&id);
        if let Some(session) = removed {
            let reason = session.stream.reason().unwrap_or(otherwise).to_owned();
            tracing::debug!(peer = %session.peer.node, reason, "session ended");
            session.peer.session_ended(id, reason);
        }
    }
}

/// Receives the events of the node server.
pub(super) struct Subscription(pub(super) Arc<Core>);

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, information: NodeServerSessionInformation) {
        match self.0.sessions.of(&information) {
            Some(session) => {
                let first = session.actor.set(information.actor.clone()).is_ok();
                if !first || !session.is_open() {
                    information.actor.stop(None);
                }
            }
            // A connection without our handshake.
            None => information.actor.stop(Some("unknown".to_owned())),
        }
    }

    fn node_session_disconnected(&self, information: NodeServerSessionInformation) {
        if let Some(session) = self.0.sessions.of(&information) {
            // Another owner of the stream may not have noticed.
            session.stream.close("the connection was closed");
            self.0.forget_session(session.id, "the connection was closed");
        }
    }

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, information: NodeServerSessionInformation) {
        let Some(session) = self.0.sessions.of(&information) else {
            return;
        };
        let (name, host) = session_name(session.peer.node, session.boot);
        let expected = format!("{name}@{host}");
        let named = information
            .peer_name
            .as_ref()
            .is_some_and(|peer| peer.name == expected);
        let gateway = ActorId::Remote {
            node_id: information.node_id,
            pid: session.gateway,
        };
        let found = information
            .actor
            .get_cell()
            .get_children()
            .into_iter()
            .find(|child| child.get_id() == gateway);
        match found.filter(|_| named) {
            Some(gateway) => {
                count(&self.0.counters.sessions);
                session.ready.store(true, Ordering::Release);
                session.peer.session_ready(&session, gateway);
            }
            None => session.close("the peer's name does not match its hello, or it has no gateway"),
        }
    }
}
