//! Routes the requests of clients: to the role that answers them, or to the node itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_protocol::admission::Need;
use quorate_protocol::api::{Request, RequestFrame};
use quorate_protocol::message::Header;
use quorate_protocol::role::{ClientRef, Event, RoleId};
use quorate_protocol::routing::{Route, route};

use crate::client_listener;
use crate::node_status::NodeStatus;
use crate::shell::{Answer, ReplyPort};

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// The connection and the request id.
    pub client: ClientRef,
    /// Deadline and trace.
    pub header: Header,
    /// The request.
    pub request: Request,
}

impl client_listener::Router for Router {
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>) {
        self.route(
            requests
                .into_iter()
                .map(|(client, frame)| self.client_request(client, frame))
                .collect(),
        );
    }

    fn required(&self, need: &Need) -> u8 {
        let table = self.status.roles.table();
        let settings = need.keyspace.and_then(|id| table.keyspaces().get(&id));
        need.required(self.status.topology.members.len(), settings)
    }
}

/// Nothing may be acknowledged before the formation of the cluster is durable: until then the cluster may be formed again.
/// Without a keyspace there is nothing to acknowledge.
fn not_formed() -> Error {
    let reason = "the cluster is being started for the first time and has no keyspaces yet: retry later";
    Error::Unavailable {
        required: 1,
        alive: 0,
        reason: Some(reason.to_owned()),
    }
}

/// Routes requests.
#[derive(Clone)]
pub struct Router {
    status: Arc<NodeStatus>,
    replies: Arc<dyn ReplyPort>,
}

impl Router {
    /// The router of this node; requests that need no role are answered through `replies`.
    pub fn new(status: Arc<NodeStatus>, replies: Arc<dyn ReplyPort>) -> Self {
        Router { status, replies }
    }

    /// Routes requests, batched by role. Never blocks.
    pub fn route(&self, requests: Vec<ClientRequest>) {
        let mut answers: Vec<Answer> = Vec::new();
        let mut by_role: BTreeMap<RoleId, Vec<Event>> = BTreeMap::new();
        let table = self.status.roles.table();
        for ClientRequest {
            client,
            header,
            request,
        } in requests
        {
            if matches!(request, Request::CreateKeyspace(_)) && self.status.is_forming() {
                answers.push((client, Err(not_formed())));
                continue;
            }
            let role = match route(&request, |role| table.role(role).is_some()) {
                Route::Role(role) => role,
                Route::Node => {
                    answers.push((client, self.status.answer(request)));
                    continue;
                }
            };
            by_role.entry(role).or_default().push(Event::Request {
                client,
                header,
                request,
            });
        }
        for (role, events) in by_role {
            // The control role ends only with the node. If a coordinator has ended, the listener answers its overdue requests.
            if let Some(mailbox) = table.role(role) {
                mailbox.push(events);
            }
        }
        if !answers.is_empty() {
            self.replies.reply(answers);
        }
    }

    /// Converts a request from the wire; its deadline becomes an instant of this process.
    fn client_request(&self, client: ClientRef, frame: RequestFrame) -> ClientRequest {
        let header = Header {
            generation: self.status.topology.generation,
            request: frame.id,
            deadline: self.status.clock.instant() + Duration::from_millis(frame.deadline_ms.into()),
            trace: frame.trace,
        };
        ClientRequest {
            client,
            header,
            request: frame.request,
        }
    }
}
