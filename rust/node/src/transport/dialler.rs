//! The dialler: keeps trying to have a session with one peer of a higher number.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::link::SessionId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::wire::{PEER_VERSION_MAX, PEER_VERSION_MIN, PeerAnswer, PeerHello, PeerWelcome};
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::faults::Dice;
use super::handshake::{HandshakeError, prepare, say_hello};
use super::peer::{Attempt, Peer};
use super::{Core, PeerIdentity, count};

pub(super) struct Dialler;

pub(super) struct DiallerState {
    core: Arc<Core>,
    peer: Arc<Peer>,
    /// The pause after the next failure, before jitter.
    pause: Duration,
    dice: Dice,
    /// When the last session was begun.
    begun: Option<Instant>,
    retry: Option<JoinHandle<Result<(), MessagingErr<Attempt>>>>,
    last_failure: Option<String>,
}

impl Actor for Dialler {
    type Msg = Attempt;
    type State = DiallerState;
    type Arguments = (Arc<Core>, Arc<Peer>);

    async fn pre_start(
        &self,
        myself: ActorRef<Attempt>,
        (core, peer): Self::Arguments,
    ) -> Result<DiallerState, ActorProcessingErr> {
        peer.set_dialler(myself.clone());
        myself.cast(Attempt)?;
        Ok(DiallerState {
            pause: core.config.backoff_min,
            core,
            peer,
            dice: Dice::default(),
            begun: None,
            retry: None,
            last_failure: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Attempt>,
        _: Attempt,
        state: &mut DiallerState,
    ) -> Result<(), ActorProcessingErr> {
        // The end of a session brings the next attempt.
        if state.core.stopping() || !state.peer.sessions().is_empty() {
            return Ok(());
        }
        if state.retry.as_ref().is_some_and(|retry| !retry.is_finished()) {
            return Ok(());
        }
        let now = state.core.clock.instant();
        if state
            .begun
            .take()
            .is_some_and(|begun| now.since(begun) > state.core.config.backoff_max)
        {
            // The last session lasted. One that ends at once, again and again, must not make a busy loop of this.
            state.pause = state.core.config.backoff_min;
        }
        match state.dial().await {
            Ok(()) => {
                state.last_failure = None;
                state.begun = Some(now);
            }
            Err(error) => state.note(&error),
        }
        state.pause_before_next(myself);
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Attempt>,
        state: &mut DiallerState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(retry) = state.retry.take() {
            retry.abort();
        }
        Ok(())
    }
}

impl DiallerState {
    /// Sets the time of the next attempt. It comes to nothing if there is a session by then.
    fn pause_before_next(&mut self, myself: ActorRef<Attempt>) {
        let pause = self.pause.mul_f64(0.5 + self.dice.roll() / 2.0);
        self.pause = (self.pause * 2).min(self.core.config.backoff_max);
        self.retry = Some(myself.send_after(pause, || Attempt));
    }

    /// Logs a failure the first time only: while a peer is down, the same one repeats.
    fn note(&mut self, error: &HandshakeError) {
        let text = error.to_string();
        if self.last_failure.as_ref() == Some(&text) {
            return;
        }
        tracing::info!(peer = %self.peer.node, address = %self.peer.address, error = %text, "cannot reach the peer");
        if let HandshakeError::Refused(error) = error
            && !matches!(error, Error::Overloaded(_))
        {
            count(&self.core.counters.refused);
            self.core.inbound.event(TimelineEvent::PeerRefused {
                peer: Some(self.peer.node),
                reason: error.to_string(),
            });
        }
        self.last_failure = Some(text);
    }

    async fn dial(&self) -> Result<(), HandshakeError> {
        if self.peer.faults.blocked() {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "blocked by a fault rule").into());
        }
        let config = &self.core.config;
        let mut stream = timeout(config.handshake, TcpStream::connect(&self.peer.address))
            .await
            .map_err(std::io::Error::from)??;
        // A port of the ephemeral range at which nobody listens may be given to the dialling end itself, and TCP
        // connects it with itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
        }
        prepare(&stream, config)?;
        let hello = self.hello();
        let welcome = timeout(config.handshake, self.exchange(&mut stream, &hello))
            .await
            .map_err(std::io::Error::from)??;
        let identity = PeerIdentity {
            node: welcome.node,
            replica: welcome.replica,
            boot: welcome.boot,
            generation: welcome.generation,
        };
        let id = SessionId(welcome.session);
        let (stream, session) = self
            .core
            .open_session(stream, id, &self.peer, identity, welcome.gateway)?;
        self.core.run_session(stream, session, false);
        Ok(())
    }

    fn hello(&self) -> PeerHello {
        let local = &self.core.local;
        PeerHello {
            version_min: PEER_VERSION_MIN,
            version_max: PEER_VERSION_MAX,
            features: 0,
            cluster: local.cluster,
            node: local.node,
            replica: local.replica,
            boot: local.boot,
            generation: self.core.generation,
            gateway: self.core.sessions.gateway(),
            expects: self.peer.node,
            credentials: Bytes::new(),
            knows: self.core.inbound.known(self.peer.node),
            layout: self.core.layout.clone(),
        }
    }

    async fn exchange(
        &self,
        stream: &mut TcpStream,
        hello: &PeerHello,
    ) -> Result<PeerWelcome, HandshakeError> {
        let welcome = match say_hello(stream, hello).await? {
            PeerAnswer::Welcome(welcome) => welcome,
            PeerAnswer::Refused(error) => return Err(HandshakeError::Refused(error)),
            PeerAnswer::Disowned(reason) => {
                self.core.disowned(self.peer.node, &reason);
                return Err(HandshakeError::Refused(Error::Refused(reason)));
            }
        };
        welcome.check(hello).map_err(HandshakeError::Refused)?;
        let identity = PeerIdentity {
            node: welcome.node,
            replica: welcome.replica,
            boot: welcome.boot,
            generation: welcome.generation,
        };
        self.core
            .admit(&self.peer, identity)
            .await
            .map_err(HandshakeError::Refused)?;
        if self.core.sessions.get(SessionId(welcome.session)).is_some() {
            return Err(HandshakeError::Refused(Error::Refused(format!(
                "node {} named a session that exists already: try again",
                welcome.node
            ))));
        }
        Ok(welcome)
    }
}

impl Core {
    /// Whether to have a session with this boot of the peer at all.
    pub(super) async fn admit(&self, peer: &Peer, identity: PeerIdentity) -> Result<(), Error> {
        if peer.is_past(identity.boot) {
            return Err(Error::Refused(format!(
                "node {} was here with a later boot than {:x}: stop the older process",
                identity.node, identity.boot.0
            )));
        }
        self.inbound.admit(identity).await
    }

    /// The peer says that this node had another data directory. Whoever says so has proved nothing yet. So it counts
    /// only while this directory has never met the peer: a directory that was lost has not, and a running cluster
    /// cannot be ended by a stranger's word.
    pub(super) fn disowned(&self, peer: NodeId, reason: &str) {
        if self.inbound.known(peer).is_none() {
            self.inbound.disowned(peer, reason);
        }
    }
}
