//! The state of one peer, shared by its dialler, its sessions, its link and all senders.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_core::ids::{BootId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::PeerStatus;
use quorate_protocol::link::{Lane, Link, LinkTotals, SessionId};
use quorate_protocol::wire::Envelope;
use ractor::{ActorCell, ActorRef};

use super::faults::PeerFaults;
use super::sessions::Session;

/// The most envelopes in the inbox; further ones are shed.
const MAX_UNSEEN: usize = 64 << 10;
/// The most bytes of envelopes in the inbox, approximately: enough for a burst that fits into the (default) lanes.
const MAX_UNSEEN_BYTES: usize = 72 << 20;

/// Returned credit wakes the link when it reaches this many bytes; less waits for the next wake.
const RETURNED_BYTES: u64 = 512 << 10;
/// Or this many envelopes.
const RETURNED_COUNT: u64 = 2 << 10;

/// The number of past boots remembered per peer.
const PAST_BOOTS: usize = 16;

/// The only message of a link actor: the inbox is not empty, or a timer is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake;

impl ractor::Message for Wake {}

/// The only message of a dialler: check whether to dial.
pub(super) struct Attempt;

impl ractor::Message for Attempt {}

/// A session began or ended.
pub(super) enum Change {
    /// The session is ready; batches are sent to this remote gateway.
    Ready(Arc<Session>, ActorCell),
    Ended(SessionId, String),
}

/// Returned credit.
pub(super) struct Returned {
    pub(super) session: SessionId,
    pub(super) bytes: u64,
    pub(super) count: u64,
}

/// The contents of a link actor's inbox.
#[derive(Default)]
pub(super) struct Unseen {
    pub(super) changes: Vec<Change>,
    pub(super) batches: Vec<(SessionId, Bytes)>,
    /// Sessions on which a batch was sent.
    pub(super) sent: Vec<SessionId>,
    pub(super) returned: Vec<Returned>,
    pub(super) envelopes: Vec<Envelope>,
    /// The approximate size of `envelopes` in bytes.
    envelope_bytes: usize,
    /// Envelopes that were shed.
    shed: u64,
}

impl Unseen {
    fn enqueue(&mut self, envelope: Envelope) {
        let bytes = envelope.message.bytes();
        // Small, and timeouts depend on them.
        let urgent = envelope.message.lane(0) == Lane::Control;
        let fits = urgent || self.envelope_bytes + bytes <= MAX_UNSEEN_BYTES;
        let fits = fits && self.envelopes.len() < MAX_UNSEEN;
        if fits {
            self.envelope_bytes += bytes;
            self.envelopes.push(envelope);
        } else {
            self.shed += 1;
        }
    }
}

#[derive(Default)]
struct Inbox {
    unseen: Unseen,
    /// Whether a [`Wake`] is pending.
    awake: bool,
    link: Option<ActorRef<Wake>>,
}

/// Published state of the link.
#[derive(Default)]
struct Gauges {
    up: AtomicBool,
    round_trip_micros: AtomicU64,
    queued_bytes: AtomicU64,
    /// When a batch last arrived.
    heard_micros: AtomicU64,
    totals: Mutex<LinkTotals>,
    /// Envelopes shed in the inbox.
    shed_unseen: AtomicU64,
}

#[derive(Default)]
struct Connections {
    current: Option<BootId>,
    past: VecDeque<BootId>,
    sessions: Vec<Arc<Session>>,
    dialler: Option<ActorRef<Attempt>>,
}

/// One peer.
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// Its address, `host:port`.
    pub(super) address: String,
    pub(super) faults: Arc<PeerFaults>,
    inbox: Mutex<Inbox>,
    gauges: Gauges,
    connections: Mutex<Connections>,
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String) -> Self {
        Peer {
            node,
            address,
            faults: Arc::default(),
            inbox: Mutex::default(),
            gauges: Gauges::default(),
            connections: Mutex::default(),
        }
    }

    /// Changes the inbox and wakes the link if `change` returns true.
    fn post(&self, change: impl FnOnce(&mut Unseen) -> bool) {
        let mut inbox = self.inbox.lock().expect("inbox");
        if change(&mut inbox.unseen)
            && !std::mem::replace(&mut inbox.awake, true)
            && let Some(link) = &inbox.link
        {
            // A link that has ended is about to be restarted, and takes the inbox then.
            let _gone = link.cast(Wake);
        }
    }

    /// Enqueues messages for the peer, except those that a fault drops.
    pub(super) fn enqueue(&self, envelopes: Vec<Envelope>) {
        let loss = self.faults.loss();
        let kept = |_: &Envelope| loss.is_none_or(|probability| !self.faults.drops(probability));
        self.post(|unseen| {
            envelopes
                .into_iter()
                .filter(kept)
                .for_each(|envelope| unseen.enqueue(envelope));
            true
        });
    }

    pub(super) fn received(&self, session: SessionId, batch: Bytes) {
        self.post(|unseen| {
            unseen.batches.push((session, batch));
            true
        });
    }

    pub(super) fn sent(&self, session: SessionId) {
        self.post(|unseen| {
            unseen.sent.push(session);
            true
        });
    }

    fn returned(&self, session: SessionId, bytes: u64, count: u64) {
        self.post(|unseen| {
            let returned = &mut unseen.returned;
            match returned.last_mut().filter(|last| last.session == session) {
                Some(last) => {
                    last.bytes += bytes;
                    last.count += count;
                }
                None => returned.push(Returned {
                    session,
                    bytes,
                    count,
                }),
            }
            returned
                .last()
                .is_some_and(|last| last.bytes >= RETURNED_BYTES || last.count >= RETURNED_COUNT)
        });
    }

    /// Wakes the link without an event, for its timer.
    pub(super) fn wake(&self) {
        self.post(|_| true);
    }

    /// Takes the contents of the inbox.
    pub(super) fn take(&self) -> Unseen {
        let mut inbox = self.inbox.lock().expect("inbox");
        inbox.awake = false;
        let unseen = std::mem::take(&mut inbox.unseen);
        drop(inbox);
        self.gauges.shed_unseen.fetch_add(unseen.shed, Ordering::Relaxed);
        unseen
    }

    /// Attaches a new link. Its sessions are those that begin from now on.
    pub(super) fn attach(&self, link: ActorRef<Wake>) {
        let mut inbox = self.inbox.lock().expect("inbox");
        inbox.unseen.batches.clear();
        inbox.unseen.sent.clear();
        inbox.unseen.returned.clear();
        inbox.link = Some(link);
        inbox.awake = false;
    }

    pub(super) fn publish(&self, link: &Link) {
        let gauges = &self.gauges;
        gauges.up.store(link.is_up(), Ordering::Relaxed);
        let round_trip = link.round_trip().map_or(0, |time| time.as_micros() as u64);
        gauges.round_trip_micros.store(round_trip, Ordering::Relaxed);
        gauges.queued_bytes.store(link.queued_bytes(), Ordering::Relaxed);
        let heard = link.heard().map_or(0, |heard| heard.0);
        gauges.heard_micros.store(heard, Ordering::Relaxed);
        *gauges.totals.lock().expect("totals") = link.totals();
    }

    pub(super) fn is_up(&self) -> bool {
        self.gauges.up.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) -> Instant {
        Instant(self.gauges.heard_micros.load(Ordering::Relaxed))
    }

    /// The totals of the current link, and the envelopes shed in the inbox.
    pub(super) fn totals(&self) -> LinkTotals {
        let mut totals = *self.gauges.totals.lock().expect("totals");
        totals.shed_envelopes += self.gauges.shed_unseen.load(Ordering::Relaxed);
        totals
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            node: self.node,
            up: self.is_up(),
            round_trip_micros: self.gauges.round_trip_micros.load(Ordering::Relaxed),
            queued_bytes: self.gauges.queued_bytes.load(Ordering::Relaxed),
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().expect("connections")
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.connections().sessions.clone()
    }

    pub(super) fn is_past(&self, boot: BootId) -> bool {
        self.connections().past.contains(&boot)
    }

    pub(super) fn add_session(&self, session: Arc<Session>) {
        self.connections().sessions.push(session);
    }

    /// The session is authenticated and ready; earlier boots of the peer are past.
    pub(super) fn session_ready(&self, session: &Arc<Session>, gateway: ActorCell) {
        let mut connections = self.connections();
        if connections.current != Some(session.boot) {
            let past = connections.current.replace(session.boot);
            connections.past.extend(past);
            if connections.past.len() > PAST_BOOTS {
                connections.past.pop_front();
            }
        }
        drop(connections);
        self.post(|unseen| {
            unseen.changes.push(Change::Ready(session.clone(), gateway));
            true
        });
    }

    pub(super) fn session_ended(&self, session: SessionId, reason: String) {
        let mut connections = self.connections();
        connections.sessions.retain(|known| known.id != session);
        let dialler = connections.dialler.clone();
        drop(connections);
        self.post(|unseen| {
            unseen.changes.push(Change::Ended(session, reason));
            true
        });
        if let Some(dialler) = dialler {
            let _stopping = dialler.cast(Attempt);
        }
    }

    pub(super) fn set_dialler(&self, dialler: ActorRef<Attempt>) {
        self.connections().dialler = Some(dialler);
    }
}

/// The credit that a delivered batch took from its sender. It is returned when the last clone is dropped.
pub struct Receipt {
    peer: Arc<Peer>,
    session: SessionId,
    bytes: u64,
    count: u64,
}

impl Receipt {
    pub(super) fn new(peer: Arc<Peer>, session: SessionId, bytes: u64, count: u64) -> Self {
        Receipt {
            peer,
            session,
            bytes,
            count,
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.peer.returned(self.session, self.bytes, self.count);
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({} bytes of {} messages)", self.bytes, self.count)
    }
}
