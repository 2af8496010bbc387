//! The node as a client of its own roles: routes responses either to the node itself or to the clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quorate_core::error::Error;
use quorate_protocol::api::Response;
use quorate_protocol::role::ClientRef;
use tokio::sync::oneshot;

use crate::client_listener;
use crate::node_status::Admission;
use crate::shell::{Answer, ReplyPort};

/// The connection id of the node's own requests; the client listener numbers its connections from 1.
const LOCAL_CONNECTION: u64 = 0;

type Pending = oneshot::Sender<Result<Response, Error>>;

/// Completes the node's own requests; passes all other responses on to the clients.
pub struct LocalClient {
    clients: Arc<dyn ReplyPort>,
    pending: Mutex<(u64, BTreeMap<u64, Pending>)>,
}

impl LocalClient {
    /// Passes responses of others on to `clients`.
    pub fn new(clients: Arc<dyn ReplyPort>) -> Self {
        LocalClient {
            clients,
            pending: Mutex::default(),
        }
    }

    /// Allocates the id of a new request; the receiver gets its response.
    pub fn expect(&self) -> (ClientRef, oneshot::Receiver<Result<Response, Error>>) {
        let (sender, receiver) = oneshot::channel();
        let mut guard = self.pending.lock().expect("pending requests");
        let (last, pending) = &mut *guard;
        *last += 1;
        pending.insert(*last, sender);
        (
            ClientRef {
                connection: LOCAL_CONNECTION,
                request: *last,
            },
            receiver,
        )
    }
}

impl ReplyPort for LocalClient {
    fn reply(&self, answers: Vec<Answer>) {
        let own = |answer: &Answer| answer.0.connection == LOCAL_CONNECTION;
        if !answers.iter().any(own) {
            return self.clients.reply(answers);
        }
        let (own, others): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(own);
        for (client, response) in own {
            let pending = self
                .pending
                .lock()
                .expect("pending requests")
                .1
                .remove(&client.request);
            // The receiver may have been dropped.
            let _gone = pending.map(|pending| pending.send(response));
        }
        if !others.is_empty() {
            self.clients.reply(others);
        }
    }
}

impl ReplyPort for client_listener::Replies {
    fn reply(&self, answers: Vec<Answer>) {
        self.reply_all(answers);
    }
}

impl Admission for client_listener::Replies {
    fn in_flight(&self) -> u64 {
        client_listener::Replies::in_flight(self) as u64
    }
}
