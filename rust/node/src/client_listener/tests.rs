//! Tests of the client listener on real sockets, with the test as the router.

mod greeting;
mod leaving;
mod load;
mod requests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::admission::{self, Need};
use quorate_protocol::api::*;
use quorate_protocol::frame::{Decoder, encode};
use quorate_protocol::role::ClientRef;
use quorate_versions::WriteId;
use ractor::Actor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::config::Secret;

const PATIENCE: Duration = Duration::from_secs(20);

/// Passes every request to the test.
struct ForwardRequests(mpsc::UnboundedSender<(ClientRef, RequestFrame)>);

impl Router for ForwardRequests {
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>) {
        for request in requests {
            let _ = self.0.send(request);
        }
    }

    /// Two replicas for requests of a keyspace.
    fn required(&self, need: &Need) -> u8 {
        if need.keyspace.is_some() { 2 } else { 1 }
    }
}

struct Served {
    address: SocketAddr,
    replies: Replies,
    requests: mpsc::UnboundedReceiver<(ClientRef, RequestFrame)>,
    listener: ractor::ActorRef<ListenerMessage>,
}

fn admitting(admission: admission::Limits) -> Limits {
    Limits {
        admission,
        ..Limits::default()
    }
}

async fn serve(limits: Limits) -> Served {
    serve_with(limits, None).await
}

async fn serve_with(limits: Limits, secret: Option<Secret>) -> Served {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (forward, requests) = mpsc::unbounded_channel();
    let replies = Replies::default();
    let arguments = Arguments {
        socket: Arc::new(socket),
        identity: Identity {
            cluster: ClusterId(7),
            node: NodeId(1),
            boot: BootId(9),
            secret,
        },
        limits,
        router: Arc::new(ForwardRequests(forward)),
        replies: replies.clone(),
    };
    let (listener, _) = Actor::spawn(None, Listener, arguments).await.unwrap();
    Served {
        address,
        replies,
        requests,
        listener,
    }
}

impl Served {
    async fn request(&mut self) -> (ClientRef, RequestFrame) {
        tokio::time::timeout(PATIENCE, self.requests.recv())
            .await
            .expect("a request before the timeout")
            .unwrap()
    }
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
}

impl Client {
    async fn connect(address: SocketAddr, cluster: Option<ClusterId>) -> (Self, ServerHello) {
        Self::connect_with_secret(address, cluster, b"").await
    }

    async fn connect_with_secret(
        address: SocketAddr,
        cluster: Option<ClusterId>,
        secret: &'static [u8],
    ) -> (Self, ServerHello) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut bytes = BytesMut::from(CLIENT_MAGIC.as_slice());
        let hello = ClientHello {
            version_min: CLIENT_VERSION_MIN,
            version_max: CLIENT_VERSION_MAX,
            features: 0,
            cluster,
            credentials: Bytes::from_static(secret),
        };
        encode(&hello, MAX_CLIENT_FRAME, &mut bytes).unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut client = Client {
            stream,
            decoder: Decoder::new(MAX_CLIENT_FRAME),
        };
        let answer = client.next().await.expect("a hello");
        (client, answer)
    }

    /// The next message; `None` when the node has closed the connection.
    async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        let read = async {
            loop {
                if let Some(message) = self.decoder.decode().unwrap() {
                    return Some(message);
                }
                match self.stream.read_buf(self.decoder.buffer_mut()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("a response before the timeout")
    }

    async fn send(&mut self, frames: &[RequestFrame]) {
        let mut bytes = BytesMut::new();
        for frame in frames {
            encode(frame, MAX_CLIENT_FRAME, &mut bytes).unwrap();
        }
        // The node may close before it has read everything.
        let _ = self.stream.write_all(&bytes).await;
    }
}

fn frame(id: u64, request: Request) -> RequestFrame {
    RequestFrame {
        id,
        deadline_ms: 1_000,
        trace: None,
        request,
    }
}

fn put(value: usize) -> Request {
    Request::Put {
        keyspace: KeyspaceId(1),
        key: Key::of("k").unwrap(),
        value: Some(vec![0; value].into()),
        context: None,
        level: None,
        write_id: WriteId {
            client: 1,
            sequence: 1,
        },
    }
}

fn listed() -> Result<Response, Error> {
    Ok(Response::Keyspaces(Vec::new()))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}
