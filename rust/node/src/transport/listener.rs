//! The listener for peers: accepts connections and admits peers with a valid hello.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_protocol::link::SessionId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::wire::{PeerAnswer, PeerHello, PeerWelcome};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::handshake::{HandshakeError, prepare, read_hello, write_answer};
use super::peer::Peer;
use super::{Core, PeerIdentity, count};

/// The most sessions of one peer that are not ready yet.
const MAX_UNREADY: usize = 4;

/// The pause when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The only message of the listener: accept the next connection.
pub(super) struct Accept;

impl ractor::Message for Accept {}

pub(super) struct Listener;

pub(super) struct ListenerState {
    core: Arc<Core>,
    listener: Arc<TcpListener>,
    pending: Arc<Semaphore>,
}

impl Actor for Listener {
    type Msg = Accept;
    type State = ListenerState;
    type Arguments = (Arc<Core>, Arc<TcpListener>);

    async fn pre_start(
        &self,
        myself: ActorRef<Accept>,
        (core, listener): Self::Arguments,
    ) -> Result<ListenerState, ActorProcessingErr> {
        myself.cast(Accept)?;
        Ok(ListenerState {
            pending: Arc::new(Semaphore::new(core.config.pending_hellos)),
            core,
            listener,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Accept>,
        _: Accept,
        state: &mut ListenerState,
    ) -> Result<(), ActorProcessingErr> {
        match state.listener.accept().await {
            Ok((stream, from)) => {
                count(&state.core.counters.accepted);
                match state.pending.clone().try_acquire_owned() {
                    Ok(permit) => drop(tokio::spawn(greet(state.core.clone(), stream, from, permit))),
                    Err(_) => {
                        let error = io::Error::other("too many pending handshakes");
                        state.core.log_rejected(from, &error.into());
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        myself.cast(Accept)?;
        Ok(())
    }
}

/// Performs the handshake on one connection. The permit is held until it is done.
async fn greet(core: Arc<Core>, mut stream: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    let result = timeout(core.config.handshake, welcome(&core, &mut stream)).await;
    drop(permit);
    let error = match result {
        Ok(Ok(opening)) => match opening.proceed(&core, stream).await {
            Ok(()) => return,
            Err(error) => HandshakeError::Io(error),
        },
        Ok(Err(error)) => error,
        Err(elapsed) => HandshakeError::Io(elapsed.into()),
    };
    core.log_rejected(from, &error);
}

impl Core {
    /// Counts a rejected connection, and logs it, with a rate limit.
    fn log_rejected(&self, from: SocketAddr, error: &HandshakeError) {
        let (counter, peer) = match error {
            HandshakeError::Refused(_) => (&self.counters.refused, None),
            HandshakeError::Objected { peer, .. } => (&self.counters.refused, *peer),
            HandshakeError::Io(_) | HandshakeError::Garbage(_) => (&self.counters.garbage, None),
        };
        count(counter);
        if !self.rejections.passes(self.clock.instant()) {
            return;
        }
        tracing::info!(%from, %error, "rejected connection");
        if let HandshakeError::Objected { error, .. } = error {
            self.inbound.event(TimelineEvent::PeerRefused {
                peer,
                reason: error.to_string(),
            });
        }
    }
}

/// An admitted peer.
struct Opening {
    peer: Arc<Peer>,
    identity: PeerIdentity,
    gateway: u64,
    answer: PeerWelcome,
}

async fn welcome(core: &Arc<Core>, stream: &mut TcpStream) -> Result<Opening, HandshakeError> {
    prepare(stream, &core.config)?;
    let hello = read_hello(stream).await?;
    let (answer, error, lost) = match consider(core, &hello).await {
        Ok(opening) => return Ok(opening),
        Err(Objection::Silent(error)) => return Err(error.into()),
        Err(Objection::Later(error)) => {
            write_answer(stream, &PeerAnswer::Refused(error.clone())).await?;
            return Err(HandshakeError::Refused(error));
        }
        Err(Objection::Spoken(error)) => (PeerAnswer::Refused(error.clone()), error, false),
        Err(Objection::Disown(error)) => (PeerAnswer::Disowned(error.to_string()), error, false),
        Err(Objection::Disowned(error)) => (PeerAnswer::Refused(error.clone()), error, true),
    };
    write_answer(stream, &answer).await?;
    if lost {
        core.disowned(hello.node, &error.to_string());
    }
    let peer = core.peers.contains_key(&hello.node).then_some(hello.node);
    Err(HandshakeError::Objected { peer, error })
}

/// Why a peer is rejected.
enum Objection {
    /// Rejected with an error, and recorded as an event.
    Spoken(Error),
    /// Rejected: the peer's data directory is not the registered one.
    Disown(Error),
    /// Rejected: the peer has registered this node with another data directory.
    Disowned(Error),
    /// Rejected temporarily: the peer may retry.
    Later(Error),
    /// Dropped without an answer, because of an injected fault.
    Silent(io::Error),
}

impl From<Error> for Objection {
    fn from(error: Error) -> Self {
        Objection::Spoken(error)
    }
}

async fn consider(core: &Arc<Core>, hello: &PeerHello) -> Result<Opening, Objection> {
    let (version, features) = hello.negotiate(core.local.cluster, core.local.node)?;
    let Some(peer) = core.peers.get(&hello.node) else {
        return Err(Objection::Spoken(Error::Refused(format!(
            "node {} is not a member of the cluster of {}: start every node with the same members",
            hello.node, core.local.node
        ))));
    };
    if peer.faults.blocked() {
        return Err(Objection::Silent(io::Error::other("blocked by a fault rule")));
    }
    if core.local.node < hello.node {
        return Err(Objection::Spoken(Error::Refused(format!(
            "node {} dialled {}, but {} must dial: run the same version on all nodes",
            hello.node, core.local.node, core.local.node
        ))));
    }
    let identity = PeerIdentity {
        node: hello.node,
        replica: hello.replica,
        boot: hello.boot,
        generation: hello.generation,
    };
    hello.agree(core.local.node, core.generation, &core.layout)?;
    hello.recognise(core.local.replica).map_err(Objection::Disowned)?;
    if let Err(error) = core.admit(peer, identity).await {
        let known = core.inbound.known(hello.node);
        let lost = known.is_some_and(|known| known != hello.replica);
        return Err(if lost {
            Objection::Disown(error)
        } else {
            Objection::Spoken(error)
        });
    }
    replace_idle_session(core, peer, hello)?;
    let session = getrandom::u64().map_err(|error| Objection::Silent(io::Error::other(error.to_string())))?;
    Ok(Opening {
        peer: peer.clone(),
        identity,
        gateway: hello.gateway,
        answer: PeerWelcome {
            version,
            features,
            cluster: core.local.cluster,
            node: core.local.node,
            replica: core.local.replica,
            boot: core.local.boot,
            generation: core.generation,
            gateway: core.sessions.gateway(),
            session: session.max(1),
        },
    })
}

/// Handles a second connection of the same boot: either the peer has abandoned the first one, or an impostor uses its id.
/// So the first one is closed if it is idle; otherwise the second is rejected and may retry.
fn replace_idle_session(core: &Core, peer: &Peer, hello: &PeerHello) -> Result<(), Objection> {
    let sessions = peer.sessions();
    if sessions.iter().filter(|session| !session.ready()).count() >= MAX_UNREADY {
        return Err(Objection::Later(Error::Overloaded(format!(
            "{} has too many unauthenticated sessions with {}: retry later",
            core.local.node, hello.node
        ))));
    }
    let idle = core.clock.instant().since(peer.heard()) > core.config.link.heartbeat * 3;
    let mut has_session = false;
    for session in sessions
        .iter()
        .filter(|session| session.ready() && session.boot == hello.boot)
    {
        has_session = true;
        if idle {
            session.close("the peer has connected again");
        }
    }
    if has_session {
        return Err(Objection::Later(Error::Overloaded(format!(
            "{} still has a session with {}: retry later",
            core.local.node, hello.node
        ))));
    }
    Ok(())
}

impl Opening {
    async fn proceed(self, core: &Arc<Core>, stream: TcpStream) -> io::Result<()> {
        let mut stream = stream;
        let answer = PeerAnswer::Welcome(self.answer.clone());
        timeout(core.config.handshake, write_answer(&mut stream, &answer))
            .await?
            .map_err(|error| io::Error::other(error.to_string()))?;
        let id = SessionId(self.answer.session);
        let (stream, session) = core.open_session(stream, id, &self.peer, self.identity, self.gateway)?;
        core.run_session(stream, session, true);
        Ok(())
    }
}
