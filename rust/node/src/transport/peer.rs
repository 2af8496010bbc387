//! What is known of one peer, shared by its dialler, its sessions, its link and everybody who sends to it.

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

/// Envelopes that wait for the link to look at them, at most; more are shed.
const MAX_UNSEEN: usize = 64 << 10;
/// About how many bytes they have, at most: a burst that the lanes behind would hold (by default) gets that far.
const MAX_UNSEEN_BYTES: usize = 72 << 20;

/// Credit that is handed back wakes the link when it amounts to this many bytes; less waits for the next occasion.
const RETURNED_BYTES: u64 = 512 << 10;
/// Or to this many envelopes.
const RETURNED_COUNT: u64 = 2 << 10;

/// Boots of a peer that are remembered as past.
const PAST_BOOTS: usize = 16;

/// The only message of a link actor: there is something in the inbox, or a timer is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake;

impl ractor::Message for Wake {}

/// The only message of a dialler: there may be reason to dial.
pub(super) struct Attempt;

impl ractor::Message for Attempt {}

/// A session began or ended.
pub(super) enum Change {
    /// Ready; batches go to this remote gateway.
    Ready(Arc<Session>, ActorCell),
    Ended(SessionId, String),
}

/// Credit on its way back.
pub(super) struct Returned {
    pub(super) session: SessionId,
    pub(super) bytes: u64,
    pub(super) count: u64,
}

/// What a link actor has not looked at yet.
#[derive(Default)]
pub(super) struct Unseen {
    pub(super) changes: Vec<Change>,
    pub(super) batches: Vec<(SessionId, Bytes)>,
    /// Sessions on which a batch is out.
    pub(super) sent: Vec<SessionId>,
    pub(super) returned: Vec<Returned>,
    pub(super) envelopes: Vec<Envelope>,
    /// About how many bytes these have.
    envelope_bytes: usize,
    /// Envelopes that did not fit.
    shed: u64,
}

impl Unseen {
    fn enqueue(&mut self, envelope: Envelope) {
        let bytes = envelope.message.bytes();
        // Small, and others' timeouts wait for them.
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
    /// A [`Wake`] is on its way.
    awake: bool,
    link: Option<ActorRef<Wake>>,
}

/// What the link says of itself.
#[derive(Default)]
struct Gauges {
    up: AtomicBool,
    round_trip_micros: AtomicU64,
    queued_bytes: AtomicU64,
    /// When something arrived last.
    heard_micros: AtomicU64,
    totals: Mutex<LinkTotals>,
    /// Envelopes shed before the link saw them.
    shed_unseen: AtomicU64,
}

#[derive(Default)]
struct Book {
    current: Option<BootId>,
    past: VecDeque<BootId>,
    sessions: Vec<Arc<Session>>,
    dialler: Option<ActorRef<Attempt>>,
}

/// One peer.
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// Where it listens, `host:port`.
    pub(super) address: String,
    pub(super) faults: Arc<PeerFaults>,
    inbox: Mutex<Inbox>,
    gauges: Gauges,
    book: Mutex<Book>,
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String) -> Self {
        Peer {
            node,
            address,
            faults: Arc::default(),
            inbox: Mutex::default(),
            gauges: Gauges::default(),
            book: Mutex::default(),
        }
    }

    /// Changes the inbox and, if `change` says so, wakes the link.
    fn post(&self, change: impl FnOnce(&mut Unseen) -> bool) {
        let mut inbox = self.inbox.lock().expect("inbox");
        if change(&mut inbox.unseen)
            && !std::mem::replace(&mut inbox.awake, true)
            && let Some(link) = &inbox.link
        {
            // A link that is gone is about to be started again, and looks into the inbox then.
            let _gone = link.cast(Wake);
        }
    }

    /// Takes messages for the peer, less what a fault loses.
    pub(super) fn enqueue(&self, envelopes: Vec<Envelope>) {
        let loss = self.faults.loss();
        let kept = |_: &Envelope| loss.is_none_or(|chance| !self.faults.loses(chance));
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

    /// Gives the link a turn although nothing has come: for its timer.
    pub(super) fn wake(&self) {
        self.post(|_| true);
    }

    /// Everything that has come since the last call.
    pub(super) fn take(&self) -> Unseen {
        let mut inbox = self.inbox.lock().expect("inbox");
        inbox.awake = false;
        let unseen = std::mem::take(&mut inbox.unseen);
        drop(inbox);
        self.gauges.shed_unseen.fetch_add(unseen.shed, Ordering::Relaxed);
        unseen
    }

    /// A new link serves this peer. Its sessions are those that begin from now on.
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

    /// The totals of the link that serves now, and what was shed before any link saw it.
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

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().expect("book")
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.book().sessions.clone()
    }

    pub(super) fn is_past(&self, boot: BootId) -> bool {
        self.book().past.contains(&boot)
    }

    pub(super) fn add_session(&self, session: Arc<Session>) {
        self.book().sessions.push(session);
    }

    /// The session is authenticated and complete; an earlier boot of the peer is past for good.
    pub(super) fn session_ready(&self, session: &Arc<Session>, gateway: ActorCell) {
        let mut book = self.book();
        if book.current != Some(session.boot) {
            let past = book.current.replace(session.boot);
            book.past.extend(past);
            if book.past.len() > PAST_BOOTS {
                book.past.pop_front();
            }
        }
        drop(book);
        self.post(|unseen| {
            unseen.changes.push(Change::Ready(session.clone(), gateway));
            true
        });
    }

    pub(super) fn session_ended(&self, session: SessionId, reason: String) {
        let mut book = self.book();
        book.sessions.retain(|known| known.id != session);
        let dialler = book.dialler.clone();
        drop(book);
        self.post(|unseen| {
            unseen.changes.push(Change::Ended(session, reason));
            true
        });
        if let Some(dialler) = dialler {
            let _stopping = dialler.cast(Attempt);
        }
    }

    pub(super) fn set_dialler(&self, dialler: ActorRef<Attempt>) {
        self.book().dialler = Some(dialler);
    }
}

/// Credit that a delivered batch has taken from its sender. It goes back when the last clone is dropped.
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
