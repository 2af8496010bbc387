//! Real sockets against a router that a test plays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::api::*;
use quorate_protocol::error::Error;
use quorate_protocol::frame::{Decoder, encode};
use quorate_protocol::ids::{BootId, ClusterId, KeyspaceId, NodeId};
use quorate_protocol::key::Key;
use quorate_protocol::role::ClientRef;
use quorate_protocol::versions::WriteId;
use ractor::Actor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Hands every request to the test.
struct Tell(mpsc::UnboundedSender<(ClientRef, RequestFrame)>);

impl Router for Tell {
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>) {
        for request in requests {
            let _ = self.0.send(request);
        }
    }
}

struct Served {
    address: SocketAddr,
    replies: Replies,
    requests: mpsc::UnboundedReceiver<(ClientRef, RequestFrame)>,
    listener: ractor::ActorRef<ListenerMessage>,
}

async fn serve(limits: Limits) -> Served {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (tell, requests) = mpsc::unbounded_channel();
    let replies = Replies::default();
    let arguments = Arguments {
        socket: Arc::new(socket),
        identity: Identity {
            cluster: ClusterId(7),
            node: NodeId(1),
            boot: BootId(9),
        },
        limits,
        router: Arc::new(Tell(tell)),
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
            .expect("a request in time")
            .unwrap()
    }
}

struct Client {
    stream: TcpStream,
    decoder: Decoder,
}

impl Client {
    async fn connect(address: SocketAddr, cluster: Option<ClusterId>) -> (Self, ServerHello) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut bytes = BytesMut::from(CLIENT_MAGIC.as_slice());
        let hello = ClientHello {
            version_min: CLIENT_VERSION_MIN,
            version_max: CLIENT_VERSION_MAX,
            features: 0,
            cluster,
            credentials: Bytes::new(),
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
            .expect("an answer in time")
    }

    async fn send(&mut self, frames: &[RequestFrame]) {
        let mut bytes = BytesMut::new();
        for frame in frames {
            encode(frame, MAX_CLIENT_FRAME, &mut bytes).unwrap();
        }
        // The node may close before it has taken everything.
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

#[tokio::test]
async fn requests_are_answered_in_any_order() {
    let mut served = serve(Limits::default()).await;
    let (mut client, hello) = Client::connect(served.address, None).await;
    assert!(matches!(
        hello,
        ServerHello::Welcome {
            node: NodeId(1),
            boot: BootId(9),
            ..
        }
    ));
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(2, put(10))])
        .await;
    let (first, _) = served.request().await;
    let (second, _) = served.request().await;
    assert_eq!(served.replies.in_flight(), 2);
    served.replies.reply_all(vec![
        (second, Err(Error::Closed("2".to_owned()))),
        (first, listed()),
    ]);
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_err()), (2, true));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_ok()), (1, true));
    assert_eq!(served.replies.in_flight(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_of_another_cluster_or_version_is_told_so() {
    let served = serve(Limits::default()).await;
    let (mut client, hello) = Client::connect(served.address, Some(ClusterId(8))).await;
    assert!(matches!(hello, ServerHello::Refused(Error::Refused(reason)) if reason.contains("cluster")));
    assert!(
        client.next::<ResponseFrame>().await.is_none(),
        "closed after the refusal"
    );
    served.listener.stop(None);
}

#[tokio::test]
async fn garbage_closes_its_connection_and_no_other() {
    let mut served = serve(Limits {
        hello: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let (mut good, _) = Client::connect(served.address, None).await;
    let endless = [CLIENT_MAGIC.as_slice(), &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    let (mut late, _) = Client::connect(served.address, None).await;
    late.stream.write_all(&[0xff; 4096]).await.unwrap();
    assert!(
        late.next::<ResponseFrame>().await.is_none(),
        "garbage after the hello"
    );
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 4096],
        &endless,
        b"QR",
        b"",
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{bytes:?} is closed by the node");
        assert!(rest.is_empty());
    }
    good.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    served.replies.reply(client, listed());
    assert!(good.next::<ResponseFrame>().await.is_some());
    let replies = served.replies.clone();
    until("strangers are forgotten", || replies.connected() == 1).await;
    served.listener.stop(None);
}

#[tokio::test]
async fn a_value_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, put(MAX_VALUE_BYTES + 1)), frame(2, put(MAX_VALUE_BYTES))])
        .await;
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!(answer.id, 1);
    assert!(
        matches!(answer.response, Err(Error::LimitExceeded { size, .. }) if size == MAX_VALUE_BYTES as u64 + 1)
    );
    assert_eq!(served.request().await.1.id, 2);
    served.listener.stop(None);
}

#[tokio::test]
async fn too_much_work_is_refused_and_admitted_again_later() {
    let mut served = serve(Limits {
        requests: 2,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[1, 2, 3].map(|id| frame(id, Request::ListKeyspaces)))
        .await;
    let refused: ResponseFrame = client.next().await.unwrap();
    assert_eq!(refused.id, 3);
    assert!(matches!(refused.response, Err(Error::Overloaded(_))));
    assert_eq!(served.replies.refused(), 1);
    let (first, _) = served.request().await;
    served.replies.reply(first, listed());
    assert_eq!(client.next::<ResponseFrame>().await.unwrap().id, 1);
    client.send(&[frame(4, Request::ListKeyspaces)]).await;
    assert_eq!(served.request().await.1.id, 2);
    assert_eq!(served.request().await.1.id, 4);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let mut served = serve(Limits {
        unread_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let ids: Vec<RequestFrame> = (0..64).map(|id| frame(id, Request::ListKeyspaces)).collect();
    client.send(&ids).await;
    for _ in 0..64 {
        let (client, _) = served.request().await;
        served
            .replies
            .reply(client, Ok(Response::Metrics("x".repeat(1 << 20))));
    }
    let replies = served.replies.clone();
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.in_flight(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn requests_of_a_client_that_left_count_no_longer() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (gone, _) = served.request().await;
    drop(client);
    let replies = served.replies.clone();
    until("the load is given back", || {
        replies.in_flight() == 0 && replies.connected() == 0
    })
    .await;
    replies.reply(gone, listed());
    served.listener.stop(None);
}

#[tokio::test]
async fn a_repeated_request_id_ends_the_connection() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(1, Request::ListKeyspaces)])
        .await;
    assert!(client.next::<ResponseFrame>().await.is_none());
    let replies = served.replies.clone();
    until("the load is given back", || replies.in_flight() == 0).await;
    assert!(served.requests.try_recv().is_err(), "neither was dispatched");
    served.listener.stop(None);
}
