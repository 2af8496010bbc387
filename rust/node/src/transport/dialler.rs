//! The dialler: keeps a session with one peer of a higher id, and retries with backoff.

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
use super::handshake::{HandshakeError, prepare, send_hello};
use super::peer::{Attempt, Peer};
use super::{Core, PeerIdentity, count};

pub(super) struct Dialler;

pub(super) struct DiallerState {
    core: Arc<Core>,
    peer: Arc<Peer>,
    /// The backoff after the next failure, before jitter.
    pause: Duration,
    dice: Dice,
    /// When the last session began.
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
        // The end of a session triggers the next attempt.
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
            // The last session was long enough. Sessions that end immediately must not cause a busy loop.
            state.pause = state.core.config.backoff_min;
        }
        match state.dial().await {
            Ok(()) => {
                state.last_failure = None;
                state.begun = Some(now);
            }
            Err(error) => state.log_failure(&error),
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
    /// Schedules the next attempt, which does nothing if there is a session by then.
    fn pause_before_next(&mut self, myself: ActorRef<Attempt>) {
        let pause = self.pause.mul_f64(0.5 + self.dice.roll() / 2.0);
        self.pause = (self.pause * 2).min(self.core.config.backoff_max);
        self.retry = Some(myself.send_after(pause, || Attempt));
    }

    /// Logs a failure, unless it repeats the last one.
    fn log_failure(&mut self, error: &HandshakeError) {
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
        // If nothing listens at a port of the ephemeral range, the kernel may assign it to the dialling end, which then
        // connects to itself.
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
        let welcome = match send_hello(stream, hello).await? {
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
                "node {} proposed the id of an existing session: retry",
                welcome.node
            ))));
        }
        Ok(welcome)
    }
}

impl Core {
    /// Admits or rejects this boot of the peer.
    pub(super) async fn admit(&self, peer: &Peer, identity: PeerIdentity) -> Result<(), Error> {
        if peer.is_past(identity.boot) {
            return Err(Error::Refused(format!(
                "node {} has had a later boot than {:x}: stop the older process",
                identity.node, identity.boot.0
            )));
        }
        self.inbound.admit(identity).await
    }

    /// The peer claims that this node had another data directory. The peer is not authenticated yet, so the claim is ignored
    /// if it is registered in this directory: a directory that was lost has no registrations, and an unauthenticated
    /// connection cannot stop a running cluster.
    pub(super) fn disowned(&self, peer: NodeId, reason: &str) {
        if self.inbound.known(peer).is_none() {
            self.inbound.disowned(peer, reason);
        }
    }
}
