//! The client library against the client listener: admission, and a node that stops.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::{CallOptions, Client};
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_node::client_listener::{
    Arguments, Identity, Limits, Listener, ListenerMessage, Replies, Router,
};
use quorate_protocol::admission;
use quorate_protocol::api::{Entry, Request, RequestFrame, Response};
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
use quorate_protocol::role::ClientRef;
use quorate_protocol::topology::{Member, Topology};
use quorate_ring::RingSettings;
use quorate_versions::Context;
use ractor::{Actor, ActorRef};

const PATIENCE: Duration = Duration::from_secs(20);

/// Serves one keyspace; answers gets immediately, or holds them.
struct Node {
    replies: Replies,
    topology: Topology,
    held: Mutex<Option<Vec<ClientRef>>>,
}

fn entry() -> Result<Response, Error> {
    Ok(Response::Entry(Entry {
        versions: Vec::new(),
        context: Context::default(),
        answered: vec![NodeId(1)],
        coordinator: NodeId(1),
        level: Level::One,
    }))
}

impl Node {
    fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    fn held(&self) -> usize {
        self.held.lock().unwrap().as_ref().map_or(0, Vec::len)
    }

    fn release(&self) {
        let held = self.held.lock().unwrap().take().unwrap_or_default();
        self.replies
            .reply_all(held.into_iter().map(|client| (client, entry())).collect());
    }
}

impl Router for Node {
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>) {
        for (client, frame) in requests {
            let answer = match frame.request {
                Request::Topology => Ok(Response::Topology(Box::new(self.topology.clone()))),
                Request::ListKeyspaces => Ok(Response::Keyspaces(vec![Keyspace {
                    id: KeyspaceId(1),
                    settings: KeyspaceSettings::quorum("users", 1),
                    groups: Vec::new(),
                }])),
                Request::Get { .. } => {
                    if let Some(held) = &mut *self.held.lock().unwrap() {
                        held.push(client);
                        continue;
                    }
                    entry()
                }
                other => Err(Error::invalid(format!("{other:?} is not for this test"))),
            };
            self.replies.reply(client, answer);
        }
    }
}

async fn start(limits: Limits) -> (Arc<Node>, ActorRef<ListenerMessage>, Client) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let member = Member {
        id: NodeId(1),
        peer_address: String::new(),
        client_address: address.clone(),
        http_address: String::new(),
        rack: "r".to_owned(),
        datacenter: "d".to_owned(),
    };
    let cluster = ClusterId(1);
    let node = Arc::new(Node {
        replies: Replies::default(),
        topology: Topology::new(cluster, 1, vec![member], RingSettings::default()).unwrap(),
        held: Mutex::default(),
    });
    let arguments = Arguments {
        socket: Arc::new(socket),
        identity: Identity {
            cluster,
            node: NodeId(1),
            boot: BootId(1),
            secret: None,
        },
        limits,
        router: Arc::clone(&node) as _,
        replies: node.replies.clone(),
    };
    let (listener, _) = Actor::spawn(None, Listener, arguments).await.unwrap();
    let client = Client::connect(vec![address], PATIENCE).await.unwrap();
    (node, listener, client)
}

fn get(number: usize) -> Request {
    Request::Get {
        keyspace: KeyspaceId(1),
        key: Key::of(format!("k{number}")).unwrap(),
        level: None,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "{what}");
}

#[tokio::test]
async fn overload_fails_immediately_and_ends_with_the_load() {
    let limits = Limits {
        admission: admission::Limits {
            requests: 100,
            ..admission::Limits::default()
        },
        ..Limits::default()
    };
    let (node, listener, client) = start(limits).await;
    node.hold();
    let options = CallOptions::timeout(PATIENCE);
    let admitted: Vec<_> = (0..100).map(|number| client.call(get(number), options)).collect();
    until("the node is full", || node.held() == 100).await;
    for number in 0..10 {
        let outcome = client.call(get(number), options).await;
        assert!(
            matches!(outcome.result, Err(Error::Overloaded(_))),
            "{:?}",
            outcome.result
        );
        assert!(outcome.elapsed < PATIENCE / 2, "before the deadline");
    }
    node.release();
    for call in admitted {
        assert!(call.await.result.is_ok());
    }
    for number in 0..200 {
        assert!(client.call(get(number), options).await.result.is_ok());
    }
    listener.stop(None);
}

#[tokio::test]
async fn a_burst_beyond_the_limit_succeeds_with_retries() {
    let limits = Limits {
        admission: admission::Limits {
            requests: 64,
            ..admission::Limits::default()
        },
        ..Limits::default()
    };
    let (_node, listener, client) = start(limits).await;
    let calls = (0..2000).map(|number| (get(number), CallOptions::default()));
    let answers = client.call_each(calls, |outcome| outcome.result).await;
    assert!(
        answers.iter().all(Result::is_ok),
        "256 concurrent requests against a limit of 64"
    );
    listener.stop(None);
}

#[tokio::test]
async fn a_stopping_node_answers_admitted_requests() {
    let (node, listener, client) = start(Limits::default()).await;
    node.hold();
    let options = CallOptions::timeout(Duration::from_secs(2));
    let calls: Vec<_> = (0..50).map(|number| client.call(get(number), options)).collect();
    until("they have arrived", || node.held() == 50).await;
    let stopping = tokio::spawn(async move { listener.stop_and_wait(None, None).await });
    node.release();
    for call in calls {
        assert!(call.await.result.is_ok());
    }
    stopping.await.unwrap().unwrap();
    let after = client.call(get(1), options).await.result.unwrap_err();
    assert!(
        matches!(after, Error::ConnectionLost(_) | Error::Closed(_)),
        "{after:?}"
    );
}
