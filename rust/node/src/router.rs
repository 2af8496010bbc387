//! Where the requests of clients go: to the role that answers them, or straight back with what the shell knows.

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
    /// Who asks, and under which name.
    pub client: ClientRef,
    /// Deadline and trace.
    pub header: Header,
    /// What is asked.
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

/// Nothing is acknowledged before it is durable that the cluster is formed: until then it may be laid anew. Without a
/// keyspace there is nothing to acknowledge.
fn not_formed() -> Error {
    let reason =
        "the cluster is being started for the first time and has no keyspaces yet: try again in a moment";
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
    /// A router of this node, which answers to `replies` what no role is needed for.
    pub fn new(status: Arc<NodeStatus>, replies: Arc<dyn ReplyPort>) -> Self {
        Router { status, replies }
    }

    /// Hands requests on, each role's together. Never blocks.
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
            // The control role goes only when the node does; a coordinator that has gone takes nothing, and the listener answers.
            if let Some(mailbox) = table.role(role) {
                mailbox.push(events);
            }
        }
        if !answers.is_empty() {
            self.replies.reply(answers);
        }
    }

    /// A request as it came over the wire; its deadline becomes an instant of this process.
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
