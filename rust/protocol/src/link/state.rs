//! The link itself: lanes that outlive sessions, and the current session.

mod pump;

use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::{Rng, Role};
use quorate_core::time::{Instant, Now};

use crate::link::bulk::{BulkQueue, Order};
use crate::link::event::{CloseReason, LinkEffect, LinkEvent, SessionId, ShedCause};
use crate::link::lane::Queue;
use crate::link::session::{Arrivals, Session};
use crate::link::settings::{LinkSettings, MAX_ENVELOPE};
use crate::message::Lane;
use crate::wire::Envelope;

/// One end of the connection to one peer; see the [module](super).
///
/// Invariants, asserted after each event: no lane exceeds its settings, the credit and chunks in flight do not exceed the
/// peer's grant, and the messages that arrived and were not taken are within the window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    settings: LinkSettings,
    session: Option<Session>,
    /// When the last session ended; initially, when the link was created.
    down_since: Instant,
    control: Queue,
    data: Queue,
    bulk: BulkQueue,
    timer: Option<Instant>,
    /// Shed during the event that is being handled, by cause.
    shed: [u64; CAUSES.len()],
    totals: LinkTotals,
}

/// The counters of a link since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkTotals {
    /// Batches transmitted.
    pub sent_batches: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Envelopes sent from the lanes.
    pub sent_envelopes: u64,
    /// Batches that arrived.
    pub received_batches: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Envelopes delivered.
    pub received_envelopes: u64,
    /// Envelopes shed, for any cause.
    pub shed_envelopes: u64,
    /// Duplicate batches, which were ignored.
    pub duplicate_batches: u64,
    /// Sessions that were closed because the peer violated the protocol.
    pub violations: u64,
}

const CAUSES: [ShedCause; 4] = [
    ShedCause::Full,
    ShedCause::NoSession,
    ShedCause::Expired,
    ShedCause::TooLarge,
];

impl Role for Link {
    type Event = LinkEvent;
    type Effect = LinkEffect;

    fn handle(&mut self, now: Now, _rng: &mut Rng, event: LinkEvent, effects: &mut Vec<LinkEffect>) {
        let now = now.instant;
        match event {
            LinkEvent::SessionUp { session } => self.session_up(now, session, effects),
            LinkEvent::SessionDown { session, reason } => {
                if self.session_if(session).is_some() {
                    self.end_session(now, reason, effects);
                }
            }
            LinkEvent::Enqueue(envelopes) => self.enqueue(now, &envelopes, effects),
            LinkEvent::Sent { session } => {
                if let Some(session) = self.session_if(session) {
                    session.outstanding = false;
                }
            }
            LinkEvent::Received { session, batch } => self.received(now, session, &batch, effects),
            LinkEvent::Taken {
                session,
                bytes,
                count,
            } => {
                if let Some(session) = self.session_if(session) {
                    session.receive_credit.take(bytes, count);
                }
            }
            LinkEvent::Timer => self.timer(now, effects),
        }
        self.pump(now, effects);
        self.report_shed(effects);
        self.assert_invariants();
    }
}

impl Link {
    /// A link without a session, created at `now`.
    ///
    /// # Panics
    /// If the largest envelope does not fit into the bulk lane.
    pub fn new(settings: LinkSettings, now: Instant) -> Self {
        assert!(
            settings.bulk_queue_bytes >= MAX_ENVELOPE,
            "the bulk lane must hold the largest envelope"
        );
        Link {
            settings,
            session: None,
            down_since: now,
            control: Queue::new(true),
            data: Queue::new(false),
            bulk: BulkQueue::default(),
            timer: None,
            shed: [0; CAUSES.len()],
            totals: LinkTotals::default(),
        }
    }

    /// Whether the peer is reachable.
    pub fn is_up(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.up)
    }

    /// The current session, up or not.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// When the last batch arrived on the current session; before the first, when the session began.
    pub fn heard(&self) -> Option<Instant> {
        self.session.as_ref().map(|session| session.heard)
    }

    /// The round trip of the last heartbeat on this session.
    pub fn round_trip(&self) -> Option<Duration> {
        self.session.as_ref().and_then(|session| session.round_trip)
    }

    /// Bytes in the lanes.
    pub fn queued_bytes(&self) -> u64 {
        (self.control.bytes() + self.data.bytes() + self.bulk.bytes()) as u64
    }

    /// Envelopes in the lanes, including the current bulk transfer.
    pub fn queued_envelopes(&self) -> u64 {
        (self.control.len() + self.data.len() + self.bulk.len()) as u64
    }

    /// Chunks that were sent on this session and not confirmed by the peer.
    pub fn chunks_in_flight(&self) -> u64 {
        self.session
            .as_ref()
            .map_or(0, |session| session.send_credit.outstanding_chunks())
    }

    /// Its counters.
    pub fn totals(&self) -> LinkTotals {
        self.totals
    }

    fn session_if(&mut self, id: SessionId) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.id == id)
    }

    fn session_up(&mut self, now: Instant, id: SessionId, effects: &mut Vec<LinkEffect>) {
        if let Some(old) = self.session() {
            self.close(now, old, CloseReason::Replaced, effects);
        }
        self.session = Some(Session::new(id, &self.settings, now));
        self.set_timer(now + self.settings.heartbeat, effects);
    }

    fn close(&mut self, now: Instant, id: SessionId, reason: CloseReason, effects: &mut Vec<LinkEffect>) {
        if matches!(reason, CloseReason::Violation(_)) {
            self.totals.violations += 1;
        }
        let words = reason.to_string();
        effects.push(LinkEffect::Close { session: id, reason });
        self.end_session(now, words, effects);
    }

    /// Ends the session and drops its state; the lanes keep their messages for the grace period.
    fn end_session(&mut self, now: Instant, reason: String, effects: &mut Vec<LinkEffect>) {
        let session = self.session.take().expect("a session ends");
        self.bulk.interrupt();
        self.down_since = now;
        if session.up {
            effects.push(LinkEffect::Down {
                session: session.id,
                reason,
            });
        }
        self.set_timer(now + self.settings.grace, effects);
    }

    fn enqueue(&mut self, now: Instant, envelopes: &[Envelope], effects: &mut Vec<LinkEffect>) {
        if self.session.is_none() && now >= self.down_since + self.settings.grace {
            self.count_shed(ShedCause::NoSession, envelopes.len() as u64);
            return;
        }
        for envelope in envelopes {
            self.enqueue_one(now, envelope);
        }
        if self.session.is_none() && self.timer.is_none() {
            self.set_timer(self.down_since + self.settings.grace, effects);
        }
    }

    fn enqueue_one(&mut self, now: Instant, envelope: &Envelope) {
        let deadline = envelope.header.deadline;
        if deadline <= now {
            self.count_shed(ShedCause::Expired, 1);
            return;
        }
        let control = envelope.message.lane(0) == Lane::Control;
        let (queue, limit) = if control {
            (&mut self.control, self.settings.control_queue_bytes)
        } else {
            (&mut self.data, self.settings.data_queue_bytes)
        };
        let size = queue.encode(now, envelope);
        if size > MAX_ENVELOPE {
            queue.discard(size);
            queue.compact();
            self.count_shed(ShedCause::TooLarge, 1);
            return;
        }
        let group = envelope.message.appends_to();
        let behind = group.is_some_and(|group| self.bulk.has_appends_of(group));
        if behind || envelope.message.lane(size) == Lane::Bulk {
            let encoded = queue.take(size);
            let after = queue.last();
            let order = group.map(|group| Order { group, after });
            self.enqueue_bulk(now, encoded, deadline, order);
            return;
        }
        let full = |queue: &Queue| queue.bytes() > limit || queue.len() >= self.settings.queue_count;
        let mut expired = 0;
        if full(queue) && queue.may_have_expired(now) {
            // Expired entries may occupy the lane. Pruning moves the entries, so the new envelope is encoded again.
            queue.discard(size);
            expired = queue.prune(now);
            queue.encode(now, envelope);
        }
        let shed = full(queue);
        if shed {
            queue.discard(size);
        } else {
            queue.commit(size, deadline);
        }
        self.count_shed(ShedCause::Expired, expired);
        self.count_shed(ShedCause::Full, u64::from(shed));
    }

    fn enqueue_bulk(&mut self, now: Instant, encoded: Vec<u8>, deadline: Instant, order: Option<Order>) {
        let limit = self.settings.bulk_queue_bytes;
        if self.bulk.bytes() + encoded.len() > limit {
            let expired = self.bulk.prune(now);
            self.count_shed(ShedCause::Expired, expired);
        }
        if self.bulk.bytes() + encoded.len() > limit {
            self.count_shed(ShedCause::Full, 1);
        } else {
            self.bulk.push(encoded, deadline, order);
        }
    }

    fn received(&mut self, now: Instant, id: SessionId, batch: &Bytes, effects: &mut Vec<LinkEffect>) {
        let Some(session) = self.session_if(id) else {
            return;
        };
        let mut arrivals = Arrivals::default();
        let result = session.receive(now, batch, &mut arrivals);
        if result.is_ok() && !session.up && !arrivals.duplicate {
            session.up = true;
            effects.push(LinkEffect::Up { session: id });
        }
        self.totals.received_batches += 1;
        self.totals.received_bytes += batch.len() as u64;
        self.totals.received_envelopes += arrivals.envelopes.len() as u64;
        self.totals.duplicate_batches += u64::from(arrivals.duplicate);
        self.count_shed(ShedCause::Expired, arrivals.expired);
        if !arrivals.envelopes.is_empty() {
            effects.push(LinkEffect::Deliver {
                session: id,
                envelopes: arrivals.envelopes,
                bytes: arrivals.bytes,
                count: arrivals.count,
            });
        }
        if let Err(reason) = result {
            self.close(now, id, reason, effects);
        }
    }

    fn timer(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        let Some(due) = self.timer.filter(|due| *due <= now) else {
            return;
        };
        self.timer = None;
        self.prune(now);
        let Some(session) = &mut self.session else {
            if now >= self.down_since + self.settings.grace {
                let count = self.control.clear() + self.data.clear() + self.bulk.clear();
                self.count_shed(ShedCause::NoSession, count);
            }
            return;
        };
        let late = now.since(due);
        if late > 2 * self.settings.heartbeat {
            // This process was stopped, so the silence is not evidence that the peer is down.
            session.heard = (session.heard + late).min(now);
        }
        let silent = now.since(session.heard);
        if silent >= self.settings.idle {
            let (id, silent_ms) = (session.id, silent.as_millis() as u64);
            self.close(now, id, CloseReason::Idle { silent_ms }, effects);
            return;
        }
        if now >= session.next_ping {
            session.ping_due = true;
            session.next_ping = now + self.settings.heartbeat;
        }
        let next = session.next_ping.min(session.heard + self.settings.idle);
        self.set_timer(next, effects);
    }

    fn prune(&mut self, now: Instant) {
        let expired = self.control.prune(now) + self.data.prune(now) + self.bulk.prune(now);
        self.count_shed(ShedCause::Expired, expired);
    }

    fn set_timer(&mut self, at: Instant, effects: &mut Vec<LinkEffect>) {
        self.timer = Some(at);
        effects.push(LinkEffect::SetTimer { at });
    }

    fn count_shed(&mut self, cause: ShedCause, count: u64) {
        self.shed[cause as usize] += count;
        self.totals.shed_envelopes += count;
    }

    fn report_shed(&mut self, effects: &mut Vec<LinkEffect>) {
        for (cause, count) in CAUSES.iter().zip(&mut self.shed) {
            if *count > 0 {
                effects.push(LinkEffect::Shed {
                    cause: *cause,
                    count: std::mem::take(count),
                });
            }
        }
    }

    fn assert_invariants(&self) {
        let settings = &self.settings;
        assert!(
            self.control.bytes() <= settings.control_queue_bytes,
            "control lane too long"
        );
        assert!(
            self.data.bytes() <= settings.data_queue_bytes,
            "data lane too long"
        );
        assert!(
            self.bulk.bytes() <= settings.bulk_queue_bytes,
            "bulk lane too long"
        );
        assert!(
            self.control.len().max(self.data.len()) <= settings.queue_count,
            "too many envelopes in a lane"
        );
        if let Some(session) = &self.session {
            assert!(
                session.send_credit.outstanding_chunks() <= settings.window_chunks,
                "too many chunks in flight"
            );
            let limit = settings.window_bytes.max(MAX_ENVELOPE as u64);
            assert!(
                session.held_bytes() <= limit,
                "more was accepted than the window allows"
            );
        }
    }
}
