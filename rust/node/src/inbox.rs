//! Mailboxes of roles: events in, batches out.
//!
//! A ractor message costs a microsecond and a turn of its actor; an event should cost neither. So senders append events
//! to a shared inbox, and only the sender that finds the actor idle wakes it with a message. All events that arrive before
//! the actor runs form one batch. An inbox has no limit of its own: admission at the edge, and the credit that
//! the receipts of incoming messages return, bound the total over all inboxes.

use std::sync::{Arc, Mutex};

use quorate_protocol::role::Event;
use ractor::ActorRef;

/// The only message of a role's actor: its inbox is not empty, or a timer is due.
#[derive(Clone, Copy, Debug)]
pub struct Wake;

impl ractor::Message for Wake {}

/// Held while incoming messages are pending; dropping it returns the credit that they took.
pub type Receipt = Arc<dyn Send + Sync>;

/// Pending events of a role.
#[derive(Default)]
pub struct Batch {
    /// In order of arrival.
    pub events: Vec<Event>,
    /// Receipts of the messages from peers.
    pub receipts: Vec<Receipt>,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    /// Whether a [`Wake`] is pending.
    awake: bool,
}

/// The events that a role's actor has not taken.
#[derive(Default)]
pub struct Inbox {
    pending: Mutex<Pending>,
}

impl Inbox {
    /// Takes all events. The next event wakes the actor again.
    pub fn take(&self) -> Batch {
        let mut pending = self.pending.lock().expect("inbox");
        pending.awake = false;
        std::mem::take(&mut pending.batch)
    }
}

/// The sending side of a role's inbox.
#[derive(Clone)]
pub struct Mailbox {
    inbox: Arc<Inbox>,
    actor: ActorRef<Wake>,
}

impl Mailbox {
    /// The mailbox of `actor`, which drains `inbox`.
    pub fn new(inbox: Arc<Inbox>, actor: ActorRef<Wake>) -> Self {
        Mailbox { inbox, actor }
    }

    /// The actor.
    pub fn actor(&self) -> &ActorRef<Wake> {
        &self.actor
    }

    /// Delivers events.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        self.deliver(events, []);
    }

    /// Delivers events of a peer; the receipts are dropped once the role has taken all events.
    pub fn deliver(
        &self,
        events: impl IntoIterator<Item = Event>,
        receipts: impl IntoIterator<Item = Receipt>,
    ) {
        let wake = {
            let mut pending = self.inbox.pending.lock().expect("inbox");
            pending.batch.events.extend(events);
            pending.batch.receipts.extend(receipts);
            !std::mem::replace(&mut pending.awake, true)
        };
        if wake {
            self.wake();
        }
    }

    /// Delivers [`Event::Dropped`] ahead of all pending events, so that the role fails them instead of executing them. Its
    /// actor stops once it has answered.
    pub fn end(&self) {
        {
            let mut pending = self.inbox.pending.lock().expect("inbox");
            pending.batch.events.insert(0, Event::Dropped);
            pending.awake = true;
        }
        self.wake();
    }

    /// Wakes the actor without an event, for its timers.
    pub fn wake(&self) {
        // The actor has ended: its events and receipts are dropped with the inbox.
        let _gone = self.actor.cast(Wake);
    }
}
