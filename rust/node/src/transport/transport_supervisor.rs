//! Starts, restarts and stops the transport's actors.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage};
use tokio::net::TcpListener;

use super::dialler::Dialler;
use super::gateway::Gateway;
use super::link_actor::LinkActor;
use super::listener::Listener;
use super::peer::Peer;
use super::sessions::{Subscription, session_name};
use super::{Core, TransportError};

/// The largest frame of a session; a batch has at most a quarter of that.
const MAX_FRAME: u64 = 1 << 20;

/// The pause before a failed actor is restarted.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The timeout for stopping each actor.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// An actor that is restarted when it fails.
#[derive(Clone)]
pub(super) enum Child {
    Listener,
    Link(Arc<Peer>),
    Dialler(Arc<Peer>),
}

pub(super) enum SupervisorMessage {
    Restart(Child),
}

impl ractor::Message for SupervisorMessage {}

pub(super) struct Supervisor;

pub(super) struct SupervisorState {
    core: Arc<Core>,
    /// Kept here so that peers can connect while the listener actor is restarted.
    listener: Arc<TcpListener>,
    children: HashMap<ActorId, Child>,
}

/// Starts all actors.
pub(super) async fn start(
    core: Arc<Core>,
    listener: TcpListener,
) -> Result<ActorRef<SupervisorMessage>, TransportError> {
    let arguments = (core.clone(), Arc::new(listener));
    let (supervisor, _) = match &core.config.supervisor {
        Some(parent) => Actor::spawn_linked(None, Supervisor, arguments, parent.clone()).await?,
        None => Actor::spawn(None, Supervisor, arguments).await?,
    };
    Ok(supervisor)
}

/// Stops all actors.
pub(super) async fn stop(core: &Core, supervisor: &ActorRef<SupervisorMessage>) {
    core.stopping.store(true, Ordering::Relaxed);
    for session in core.sessions.all() {
        core.end_session(&session, "the node is stopping");
    }
    let cell = supervisor.get_cell();
    for child in cell.get_children() {
        // The listener may be waiting for a connection and a dialler for an answer: neither would handle a stop message.
        let _gone = child.kill_and_wait(Some(STOP_TIMEOUT)).await;
    }
    let _gone = cell.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = (Arc<Core>, Arc<TcpListener>);

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        (core, listener): Self::Arguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let cell = myself.get_cell();
        let (gateway, _) = Actor::spawn_linked(None, Gateway, core.clone(), cell.clone()).await?;
        let server = start_server(&core, &cell).await?;
        core.sessions.serve(server, &gateway.get_cell());
        let mut state = SupervisorState {
            core,
            listener,
            children: HashMap::new(),
        };
        let peers: Vec<Arc<Peer>> = state.core.peers.values().cloned().collect();
        for peer in peers {
            state.spawn(&cell, Child::Link(peer.clone())).await?;
            if state.core.local.node < peer.node {
                state.spawn(&cell, Child::Dialler(peer)).await?;
            }
        }
        state.spawn(&cell, Child::Listener).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Restart(_) if state.core.stopping() => Ok(()),
            SupervisorMessage::Restart(child) => state.spawn(&myself.get_cell(), child).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (who, reason) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who, reason.unwrap_or_default()),
            _ => return Ok(()),
        };
        if state.core.stopping() {
            return Ok(());
        }
        let Some(child) = state.children.remove(&who.get_id()) else {
            return Err(format!("an essential actor of the transport ended: {reason}").into());
        };
        tracing::error!(actor = %child.name(), reason, "an actor of the transport ended and is restarted");
        myself.send_after(RESTART_PAUSE, move || SupervisorMessage::Restart(child));
        Ok(())
    }
}

impl SupervisorState {
    async fn spawn(&mut self, supervisor: &ActorCell, child: Child) -> Result<(), ActorProcessingErr> {
        let supervisor = supervisor.clone();
        let core = self.core.clone();
        let cell = match &child {
            Child::Listener => {
                let arguments = (core, self.listener.clone());
                Actor::spawn_linked(None, Listener, arguments, supervisor)
                    .await?
                    .0
                    .get_cell()
            }
            Child::Link(peer) => {
                let arguments = (core, peer.clone());
                Actor::spawn_linked(None, LinkActor, arguments, supervisor)
                    .await?
                    .0
                    .get_cell()
            }
            Child::Dialler(peer) => {
                let arguments = (core, peer.clone());
                Actor::spawn_linked(None, Dialler, arguments, supervisor)
                    .await?
                    .0
                    .get_cell()
            }
        };
        self.children.insert(cell.get_id(), child);
        Ok(())
    }
}

impl Child {
    fn name(&self) -> String {
        match self {
            Child::Listener => "listener".to_owned(),
            Child::Link(peer) => format!("link to {}", peer.node),
            Child::Dialler(peer) => format!("dialler of {}", peer.node),
        }
    }
}

/// Starts the node server of ractor_cluster, without its listener.
///
/// Its host name includes the boot, which makes the name and the connection string of every boot of every node unique:
/// ractor_cluster takes two nodes with equal strings for one that has connected to itself.
async fn start_server(
    core: &Arc<Core>,
    supervisor: &ActorCell,
) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
    let (name, host) = session_name(core.local.node, core.local.boot);
    let server = NodeServer::new(
        0,
        cookie(core),
        name,
        host,
        None,
        Some(NodeConnectionMode::Isolated),
    )
    .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
    .with_max_inbound_frame_size(MAX_FRAME);
    let (server, _) = Actor::spawn_linked(None, server, (), supervisor.clone()).await?;
    // The only child of a new server is its listener. Unlinked from the server, it is not restarted.
    for listener in server.get_cell().get_children() {
        listener.unlink(server.get_cell());
        listener.kill_and_wait(Some(STOP_TIMEOUT)).await?;
    }
    server.cast(NodeServerMessage::SubscribeToEvents {
        id: "transport".to_owned(),
        subscription: Box::new(Subscription(core.clone())),
    })?;
    Ok(server)
}

/// The shared secret of both ends of a session.
fn cookie(core: &Core) -> String {
    match &core.config.secret {
        Some(secret) => secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        None => format!("cluster {}", core.local.cluster),
    }
}
