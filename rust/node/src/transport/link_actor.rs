//! The actor that runs the link to one peer: inbox in, effects out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::time::Instant;
use quorate_protocol::link::{Link, LinkEffect, LinkEvent, SessionId};
use quorate_protocol::role::Address;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::wire::Envelope;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use super::gateway::cast;
use super::peer::{Change, Peer, Receipt, Unseen, Wake};
use super::sessions::Session;
use super::{Core, Incoming};

/// The most batches that may arrive before this end knows that the session is ready. The peer has no credit by then, so
/// it can send only its first batch.
const MAX_EARLY: usize = 16;

/// The session that the link uses.
struct Live {
    session: Arc<Session>,
    gateway: ActorCell,
}

pub(super) struct LinkActor;

pub(super) struct LinkState {
    core: Arc<Core>,
    peer: Arc<Peer>,
    link: Link,
    rng: Rng,
    live: Option<Live>,
    early: Vec<(SessionId, Bytes)>,
    timer: Option<(Instant, JoinHandle<()>)>,
    effects: Vec<LinkEffect>,
}

impl Actor for LinkActor {
    type Msg = Wake;
    type State = LinkState;
    type Arguments = (Arc<Core>, Arc<Peer>);

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        (core, peer): Self::Arguments,
    ) -> Result<LinkState, ActorProcessingErr> {
        // After a failure: this link does not know the sessions of the previous one.
        for session in peer.sessions() {
            session.close("the link was restarted");
        }
        if peer.is_up() {
            core.inbound.peer(peer.node, false, "the link was restarted");
        }
        peer.attach(myself.clone());
        let link = Link::new(core.config.link.clone(), core.clock.instant());
        peer.publish(&link);
        myself.cast(Wake)?;
        Ok(LinkState {
            core,
            peer,
            link,
            rng: rng_from_seed(0),
            live: None,
            early: Vec::new(),
            timer: None,
            effects: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Wake>,
        _: Wake,
        state: &mut LinkState,
    ) -> Result<(), ActorProcessingErr> {
        let unseen = state.peer.take();
        state.process(unseen);
        state.peer.publish(&state.link);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Wake>, state: &mut LinkState) -> Result<(), ActorProcessingErr> {
        if let Some((_, task)) = state.timer.take() {
            task.abort();
        }
        Ok(())
    }
}

impl LinkState {
    fn process(&mut self, unseen: Unseen) {
        // Batches come before the end of their session, and before the timer, which checks the idle timeout.
        for (session, batch) in unseen.batches {
            self.batch(session, batch);
        }
        for change in unseen.changes {
            match change {
                Change::Ready(session, gateway) => self.ready(session, gateway),
                Change::Ended(session, reason) => {
                    self.early.retain(|(early, _)| *early != session);
                    self.handle_event(LinkEvent::SessionDown { session, reason });
                    if self.live.as_ref().is_some_and(|live| live.session.id == session) {
                        self.live = None;
                    }
                }
            }
        }
        for returned in unseen.returned {
            self.handle_event(LinkEvent::Taken {
                session: returned.session,
                bytes: returned.bytes,
                count: returned.count,
            });
        }
        if !unseen.envelopes.is_empty() {
            self.handle_event(LinkEvent::Enqueue(unseen.envelopes));
        }
        for session in unseen.sent {
            self.handle_event(LinkEvent::Sent { session });
        }
        if let Some((at, _)) = &self.timer
            && *at <= self.core.clock.instant()
        {
            self.timer = None;
            self.handle_event(LinkEvent::Timer);
        }
    }

    fn batch(&mut self, session: SessionId, batch: Bytes) {
        if self.link.session() == Some(session) {
            if let Some(live) = &self.live {
                live.session.stream.handled();
            }
            self.handle_event(LinkEvent::Received { session, batch });
            return;
        }
        // Of a session that is about to be ready, or of one that has ended.
        let Some(coming) = self.core.sessions.get(session).filter(|coming| coming.is_open()) else {
            return;
        };
        if self.early.len() < MAX_EARLY {
            self.early.push((session, batch));
        } else {
            coming.close("the peer exceeded its credit before the session was ready");
        }
    }

    fn ready(&mut self, session: Arc<Session>, gateway: ActorCell) {
        let id = session.id;
        self.live = Some(Live { session, gateway });
        self.handle_event(LinkEvent::SessionUp { session: id });
        for (session, batch) in std::mem::take(&mut self.early) {
            if session == id {
                self.batch(session, batch);
            }
        }
    }

    fn handle_event(&mut self, event: LinkEvent) {
        let mut effects = std::mem::take(&mut self.effects);
        self.link
            .handle(self.core.clock.now(), &mut self.rng, event, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: LinkEffect) {
        let node = self.peer.node;
        match effect {
            LinkEffect::Transmit { session, batch } => {
                if let Some(live) = self.live.as_ref().filter(|live| live.session.id == session) {
                    // If the proxy of the remote gateway has ended, so has the session, whose end is reported next.
                    let _gone = live.gateway.send_serialized(cast(batch.into()));
                }
            }
            LinkEffect::Deliver {
                session,
                envelopes,
                bytes,
                count,
            } => self.deliver(session, envelopes, bytes, count),
            LinkEffect::Close { session, reason } => {
                tracing::warn!(peer = %node, %reason, "closing the session");
                if let Some(session) = self.core.sessions.get(session) {
                    session.close(&reason.to_string());
                }
            }
            LinkEffect::Up { .. } => {
                tracing::info!(peer = %node, "peer is up");
                self.core.inbound.event(TimelineEvent::PeerUp { peer: node });
                self.core.inbound.peer(node, true, "");
            }
            LinkEffect::Down { reason, .. } => {
                tracing::info!(peer = %node, reason, "peer is down");
                self.core.inbound.peer(node, false, &reason);
                self.core
                    .inbound
                    .event(TimelineEvent::PeerDown { peer: node, reason });
            }
            LinkEffect::SetTimer { at } => self.set_timer(at),
            LinkEffect::Shed { cause, count } => {
                tracing::debug!(peer = %node, ?cause, count, "messages shed");
            }
        }
    }

    fn deliver(&self, session: SessionId, envelopes: Vec<Envelope>, bytes: u64, count: u64) {
        let node = self.peer.node;
        let receipt = Arc::new(Receipt::new(self.peer.clone(), session, bytes, count));
        let incoming = envelopes.into_iter().map(|envelope| Incoming {
            from: Address {
                node,
                role: envelope.from,
            },
            to: envelope.to,
            header: envelope.header,
            message: envelope.message,
            receipt: receipt.clone(),
        });
        self.core.inbound.deliver(node, incoming.collect());
    }

    fn set_timer(&mut self, at: Instant) {
        if let Some((_, task)) = self.timer.take() {
            task.abort();
        }
        let due = self.core.clock.monotonic(at);
        let peer = self.peer.clone();
        let task = tokio::spawn(async move {
            // Never early: the link ignores a timer that is not due.
            tokio::time::sleep_until(tokio::time::Instant::from_std(due) + Duration::from_micros(1)).await;
            peer.wake();
        });
        self.timer = Some((at, task));
    }
}
