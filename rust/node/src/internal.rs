//! Requests that the node makes of its own roles, and the sorting of answers between it and the clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quorate_core::error::Error;
use quorate_protocol::api::Response;
use quorate_protocol::role::ClientRef;
use tokio::sync::oneshot;

use crate::listener;
use crate::shell::{Answer, ReplyPort};
use crate::view::Admission;

/// The connection under which the node asks itself; the listener numbers its connections from 1.
const INTERNAL: u64 = 0;

type Waiting = oneshot::Sender<Result<Response, Error>>;

/// Answers to the node itself are taken out here; all others go on to the clients.
pub struct Internal {
    clients: Arc<dyn ReplyPort>,
    waiting: Mutex<(u64, BTreeMap<u64, Waiting>)>,
}

impl Internal {
    /// In front of the answers to `clients`.
    pub fn new(clients: Arc<dyn ReplyPort>) -> Self {
        Internal {
            clients,
            waiting: Mutex::default(),
        }
    }

    /// The name for a new request of the node's own, and where its answer comes.
    pub fn expect(&self) -> (ClientRef, oneshot::Receiver<Result<Response, Error>>) {
        let (sender, receiver) = oneshot::channel();
        let mut guard = self.waiting.lock().expect("internal requests");
        let (last, waiting) = &mut *guard;
        *last += 1;
        waiting.insert(*last, sender);
        (
            ClientRef {
                connection: INTERNAL,
                request: *last,
            },
            receiver,
        )
    }
}

impl ReplyPort for Internal {
    fn reply(&self, answers: Vec<Answer>) {
        let own = |answer: &Answer| answer.0.connection == INTERNAL;
        if !answers.iter().any(own) {
            return self.clients.reply(answers);
        }
        let (own, others): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(own);
        for (client, response) in own {
            let waiting = self
                .waiting
                .lock()
                .expect("internal requests")
                .1
                .remove(&client.request);
            // One that gave up waiting needs no answer.
            let _gone = waiting.map(|waiting| waiting.send(response));
        }
        if !others.is_empty() {
            self.clients.reply(others);
        }
    }
}

impl ReplyPort for listener::Replies {
    fn reply(&self, answers: Vec<Answer>) {
        self.reply_all(answers);
    }
}

impl Admission for listener::Replies {
    fn in_flight(&self) -> u64 {
        listener::Replies::in_flight(self) as u64
    }
}
