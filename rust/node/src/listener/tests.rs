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
use crate::config::Secret;

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
    serve_with(limits, None).await
}

async fn serve_with(limits: Limits, secret: Option<Secret>) -> Served {
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
            secret,
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
        Self::connect_knowing(address, cluster, b"").await
    }

    async fn connect_knowing(
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
async fn a_client_without_the_secret_is_told_so() {
    let served = serve_with(Limits::default(), Some(Secret(b"sesame".to_vec()))).await;
    for wrong in [b"".as_slice(), b"sesam", b"sesame!", b"SESAME"] {
        let (mut client, hello) = Client::connect_knowing(served.address, None, wrong).await;
        assert!(matches!(hello, ServerHello::Refused(Error::Refused(reason)) if reason.contains("secret")));
        assert!(
            client.next::<ResponseFrame>().await.is_none(),
            "closed after the refusal"
        );
    }
    let (_, hello) = Client::connect_knowing(served.address, None, b"sesame").await;
    assert!(matches!(hello, ServerHello::Welcome { .. }));
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
async fn requests_of_a_client_that_left_count_until_they_are_answered() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(2, Request::ListKeyspaces)])
        .await;
    let (first, _) = served.request().await;
    let (second, _) = served.request().await;
    drop(client);
    let replies = served.replies.clone();
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.in_flight(), 2, "somebody still works on them");
    replies.reply_all(vec![(first, listed()), (second, listed())]);
    assert_eq!(replies.in_flight(), 0);
    until("it is forgotten", || {
        replies.shared.table.read().unwrap().is_empty()
    })
    .await;
    replies.reply(second, listed());
    served.listener.stop(None);
}

#[tokio::test]
async fn what_nobody_answers_is_answered_after_its_deadline() {
    let mut served = serve(Limits {
        overdue: Duration::from_millis(10),
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let (mut write, mut read) = (frame(1, put(10)), frame(2, Request::ListKeyspaces));
    (write.deadline_ms, read.deadline_ms) = (20, 20);
    client.send(&[write, read]).await;
    let mut answers: Vec<ResponseFrame> = vec![client.next().await.unwrap(), client.next().await.unwrap()];
    answers.sort_by_key(|answer| answer.id);
    assert!(matches!(answers[0].response, Err(Error::OutcomeUnknown { .. })));
    assert!(matches!(answers[1].response, Err(Error::ReadTimeout { .. })));
    assert_eq!(served.replies.in_flight(), 0);
    let (late, _) = served.request().await;
    served.replies.reply(late, listed());
    served.listener.stop(None);
}

#[tokio::test]
async fn expired_requests_are_not_dispatched() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let (mut write, mut read) = (frame(1, put(10)), frame(2, Request::ListKeyspaces));
    (write.deadline_ms, read.deadline_ms) = (0, 0);
    client
        .send(&[write, read, frame(3, Request::ListKeyspaces)])
        .await;
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::Overloaded(text)) if text.contains("deadline")));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::ReadTimeout { .. })));
    assert_eq!(served.request().await.1.id, 3);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_so() {
    let mut served = serve(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let (mut first, _) = Client::connect(served.address, None).await;
    let (mut second, hello) = Client::connect(served.address, None).await;
    assert!(
        matches!(&hello, ServerHello::Refused(Error::Overloaded(text)) if text.contains("n1 has 1 client connections")),
        "{hello:?}"
    );
    assert!(second.next::<ResponseFrame>().await.is_none());
    first.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    served.replies.reply(client, listed());
    assert!(first.next::<ResponseFrame>().await.is_some());
    drop(first);
    let replies = served.replies.clone();
    until("there is room again", || replies.connected() == 0).await;
    let (_third, hello) = Client::connect(served.address, None).await;
    assert!(matches!(hello, ServerHello::Welcome { .. }));
    served.listener.stop(None);
}

#[tokio::test]
async fn large_requests_wait_for_their_turn() {
    let mut served = serve(Limits {
        partial_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let (mut slow, _) = Client::connect(served.address, None).await;
    let (mut other, _) = Client::connect(served.address, None).await;
    let mut bytes = BytesMut::new();
    encode(&frame(1, put(900_000)), MAX_CLIENT_FRAME, &mut bytes).unwrap();
    slow.stream.write_all(&bytes[..500_000]).await.unwrap();
    let replies = served.replies.clone();
    until("it has its turn", || replies.shared.load.partial.used() > 0).await;
    other.send(&[frame(7, Request::ListKeyspaces)]).await;
    assert_eq!(served.request().await.1.id, 7, "small ones go on");
    let sending = tokio::spawn(async move {
        other.send(&[frame(8, put(800_000))]).await;
        other
    });
    // The other's cannot come in while this one is half there; both do once it is whole.
    until("the other waits", || {
        replies.shared.load.partial.used() <= 1 << 20
    })
    .await;
    assert!(served.requests.try_recv().is_err());
    slow.stream.write_all(&bytes[500_000..]).await.unwrap();
    assert_eq!(served.request().await.1.id, 1);
    assert_eq!(served.request().await.1.id, 8);
    drop(sending.await.unwrap());
    until("all turns are over", || replies.shared.load.partial.used() == 0).await;
    served.listener.stop(None);
}

#[tokio::test]
async fn a_request_that_does_not_come_in_whole_ends_its_connection() {
    let served = serve(Limits {
        frame: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.stream.write_all(&[100, 0, 0, 0, 1]).await.unwrap();
    assert!(client.next::<ResponseFrame>().await.is_none());
    served.listener.stop(None);
}

fn megabyte() -> Result<Response, Error> {
    Ok(Response::Metrics("x".repeat(1 << 20)))
}

#[tokio::test]
async fn no_more_is_read_from_a_client_that_does_not_read() {
    let mut served = serve(Limits {
        unread_bytes: 64 << 20,
        ..Limits::default()
    })
    .await;
    let replies = served.replies.clone();
    let (mut lazy, _) = Client::connect(served.address, None).await;
    let (mut other, _) = Client::connect(served.address, None).await;
    lazy.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    // Far more than the sockets' buffers and a quarter of the limit take.
    replies.reply(client, Ok(Response::Metrics("x".repeat(31 << 20))));
    lazy.send(&[frame(2, Request::ListKeyspaces)]).await;
    // The listener has every opportunity to read it.
    for id in 0..20 {
        other.send(&[frame(id, put(10))]).await;
        let (client, request) = served.request().await;
        assert!(
            matches!(request.request, Request::Put { .. }),
            "the lazy client's turn has not come"
        );
        replies.reply(client, listed());
        assert!(other.next::<ResponseFrame>().await.is_some());
    }
    assert!(lazy.next::<ResponseFrame>().await.is_some());
    assert_eq!(served.request().await.1.id, 2);
    assert_eq!(replies.shared.load.unread.used(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_that_has_stopped_reading_is_closed_after_a_while() {
    let mut served = serve(Limits {
        stall: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let replies = served.replies.clone();
    let (mut client, _) = Client::connect(served.address, None).await;
    let ids: Vec<RequestFrame> = (0..16).map(|id| frame(id, Request::ListKeyspaces)).collect();
    client.send(&ids).await;
    for _ in 0..16 {
        let (client, _) = served.request().await;
        replies.reply(client, megabyte());
    }
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.shared.load.unread.used(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_listener_that_stops_lets_nothing_in_and_finishes_what_it_has() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.send(&[frame(1, put(10))]).await;
    let (first, _) = served.request().await;
    let listener = served.listener.clone();
    let stopping = tokio::spawn(async move { listener.stop_and_wait(None, None).await });
    let replies = served.replies.clone();
    until("it is stopping", || replies.shared.is_closing()).await;
    client.send(&[frame(2, put(10))]).await;
    let refused: ResponseFrame = client.next().await.unwrap();
    assert_eq!(refused.id, 2);
    assert!(matches!(refused.response, Err(Error::Closed(_))));
    served.replies.reply(first, listed());
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_ok()), (1, true));
    assert!(client.next::<ResponseFrame>().await.is_none());
    stopping.await.unwrap().unwrap();
    assert_eq!(replies.connected(), 0);
}

#[tokio::test]
async fn an_answer_beyond_the_frame_limit_says_so() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (asked, _) = served.request().await;
    served
        .replies
        .reply(asked, Ok(Response::Metrics("x".repeat(MAX_CLIENT_FRAME + 1))));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::LimitExceeded { .. })));
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
