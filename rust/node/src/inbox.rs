//! Mailboxes of roles: events in, batches out.
//!
//! A ractor message costs a microsecond and a turn of its actor; an event should cost neither. So senders put events
//! into a shared inbox, and only the one that finds the actor asleep wakes it with a message. Whatever has come by
//! the time the actor runs is one batch. No inbox has a limit of its own: admission at the edge, and the credit that
//! the receipts of incoming messages return, bound what can be in all of them together.

use std::sync::{Arc, Mutex};

use quorate_protocol::role::Event;
use ractor::ActorRef;

/// The only message of a role's actor: there is something in its inbox.
#[derive(Clone, Copy, Debug)]
pub struct Wake;

impl ractor::Message for Wake {}

/// Held while incoming messages wait for their role; dropping it returns the credit that they took.
pub type Receipt = Arc<dyn Send + Sync>;

/// Events that wait for a role.
#[derive(Default)]
pub struct Batch {
    /// In order of arrival.
    pub events: Vec<Event>,
    /// Of those that came from peers.
    pub receipts: Vec<Receipt>,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    /// Whether a [`Wake`] is on its way.
    awake: bool,
}

/// The events that a role's actor has not taken yet.
#[derive(Default)]
pub struct Inbox {
    pending: Mutex<Pending>,
}

impl Inbox {
    /// Takes everything. The next event wakes the actor again.
    pub fn take(&self) -> Batch {
        let mut pending = self.pending.lock().expect("inbox");
        pending.awake = false;
        std::mem::take(&mut pending.batch)
    }
}

/// Where to put events for one role.
#[derive(Clone)]
pub struct Mailbox {
    inbox: Arc<Inbox>,
    actor: ActorRef<Wake>,
}

impl Mailbox {
    /// The mailbox of `actor`, which takes from `inbox`.
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

    /// Delivers events of a peer; the receipts are dropped once the role has taken all of them.
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

    /// Tells the role that it is not wanted any longer, before everything that waits: what it was asked and has not begun, it
    /// should not begin. Its actor goes once it has answered.
    pub fn end(&self) {
        {
            let mut pending = self.inbox.pending.lock().expect("inbox");
            pending.batch.events.insert(0, Event::Dropped);
            pending.awake = true;
        }
        self.wake();
    }

    /// Gives the actor a turn although nothing has come, for its timers.
    pub fn wake(&self) {
        // An actor that is gone needs no turn; its events and receipts go with the inbox.
        let _gone = self.actor.cast(Wake);
    }
}
