//! Malformed or unauthenticated connections to the peer port are closed, and do not affect others.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId, ReplicaId};
use quorate_node::transport::TransportConfig;
use quorate_protocol::wire::{
    HELLO_PREFIX, Layout, PEER_VERSION_MAX, PEER_VERSION_MIN, PeerAnswer, PeerHello, PeerWelcome,
    hello_body_length,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Node, PATIENCE, eventually, identity, listeners, stop, topology};

/// n2 and n3 are connected; n1 is a member that does not run, which the test impersonates.
async fn two_of_three(config: TransportConfig) -> (Vec<Node>, String) {
    let (listeners, addresses) = listeners(3).await;
    let topology = topology(&addresses);
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners).skip(1) {
        nodes.push(Node::start(config.clone(), listener, &topology, identity(id, u64::from(id))).await);
    }
    eventually("n2 and n3 see each other", || {
        nodes[0].sees(NodeId(3)) && nodes[1].sees(NodeId(2))
    })
    .await;
    (nodes, addresses[2].1.clone())
}

fn quick() -> TransportConfig {
    TransportConfig {
        handshake: Duration::from_millis(300),
        authentication: Duration::from_millis(300),
        ..TransportConfig::default()
    }
}

fn hello() -> PeerHello {
    PeerHello {
        version_min: PEER_VERSION_MIN,
        version_max: PEER_VERSION_MAX,
        features: 0,
        cluster: ClusterId(7),
        node: NodeId(1),
        replica: ReplicaId::new(NodeId(1), 1),
        boot: BootId(5),
        generation: 1,
        gateway: 1,
        expects: NodeId(3),
        credentials: Bytes::new(),
        knows: None,
        // An unused port: addresses are not part of a layout.
        layout: Layout::of(&topology(&[1, 2, 3].map(|id| (id, String::new())))),
    }
}

async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection is closed");
    // Either reset or closed.
    drop(end);
}

async fn answer(stream: &mut TcpStream) -> PeerAnswer {
    let mut prefix = [0; HELLO_PREFIX];
    timeout(PATIENCE, stream.read_exact(&mut prefix))
        .await
        .unwrap()
        .unwrap();
    let mut body = vec![0; hello_body_length(&prefix).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    PeerAnswer::decode(&body).unwrap()
}

async fn welcomed(address: &str) -> (TcpStream, PeerWelcome) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello().encode()).await.unwrap();
    match answer(&mut stream).await {
        PeerAnswer::Welcome(welcome) => (stream, welcome),
        refused => panic!("{refused:?}"),
    }
}

/// The healthy session is not affected, and still carries messages.
async fn unharmed(nodes: Vec<Node>) {
    let before = nodes[1].memory.received();
    nodes[0].transport.send(NodeId(3), vec![nodes[0].envelope(1, 10)]);
    eventually("a message between the others", || {
        nodes[1].memory.received() > before
    })
    .await;
    for node in &nodes {
        let recorded = node.memory.recorded.lock().unwrap();
        assert!(
            recorded.peers.iter().all(|(_, up, _)| *up),
            "{:?}",
            recorded.peers
        );
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_hello_closes_the_connection() {
    let (nodes, address) = two_of_three(quick()).await;
    let whole = hello().encode();
    let mut giant = whole.clone();
    giant[4..6].copy_from_slice(&u16::MAX.to_le_bytes());
    let noise: Vec<u8> = (0..100_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let attempts: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &noise,
        &giant,
        b"QRTp\x10\x00garbage-garbage-",
        &[0; 4096],
        &[0xff; 16],
    ];
    for bytes in attempts {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // The other end may close before it has read everything.
        let _enough = stream.write_all(bytes).await;
        closed(&mut stream).await;
    }
    assert_eq!(nodes[1].transport.totals().garbage, attempts.len() as u64);
    unharmed(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incomplete_hellos_time_out() {
    let (nodes, address) = two_of_three(quick()).await;
    let whole = hello().encode();
    let mut streams = Vec::new();
    for length in [0, 1, HELLO_PREFIX, whole.len() - 1] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&whole[..length]).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        closed(stream).await;
    }
    // Single bytes do not extend the deadline.
    let mut slow = TcpStream::connect(&address).await.unwrap();
    let begun = tokio::time::Instant::now();
    for byte in whole {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if slow.write_all(&[byte]).await.is_err() {
            break;
        }
    }
    closed(&mut slow).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    unharmed(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_silent_connections_is_bounded() {
    let (nodes, address) = two_of_three(TransportConfig {
        pending_hellos: 8,
        ..quick()
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(TcpStream::connect(&address).await.unwrap());
    }
    for stream in &mut streams {
        closed(stream).await;
    }
    eventually("all counted", || nodes[1].transport.totals().garbage == 100).await;
    drop(welcomed(&address).await);
    unharmed(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_carry_the_reason() {
    let (nodes, address) = two_of_three(quick()).await;
    type Change = fn(&mut PeerHello);
    let rejected: [(Change, &str); 7] = [
        (|hello| hello.cluster = ClusterId(8), "cluster"),
        (|hello| hello.expects = NodeId(2), "dialled n2 but reached n3"),
        (|hello| hello.version_min = 9, "upgrade"),
        (|hello| hello.generation = 2, "same generation"),
        (
            |hello| hello.layout = Layout::of(&topology(&[1, 3].map(|id| (id, String::new())))),
            "2 members (n1, n3)",
        ),
        (
            |hello| (hello.node, hello.replica) = (NodeId(9), ReplicaId::new(NodeId(9), 1)),
            "not a member",
        ),
        (
            |hello| (hello.node, hello.replica) = (NodeId(3), ReplicaId::new(NodeId(3), 1)),
            "its own id",
        ),
    ];
    for (change, words) in rejected {
        let mut hello = hello();
        change(&mut hello);
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&hello.encode()).await.unwrap();
        match answer(&mut stream).await {
            PeerAnswer::Refused(Error::Refused(reason)) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
        closed(&mut stream).await;
    }
    assert_eq!(nodes[1].transport.totals().refused, 7);
    unharmed(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_without_the_secret_gets_no_session() {
    let (nodes, address) = two_of_three(quick()).await;
    // A valid hello, then nothing.
    let (mut silent, _) = welcomed(&address).await;
    closed(&mut silent).await;
    // A frame for which ractor_cluster must not allocate a buffer.
    let (mut giant, _) = welcomed(&address).await;
    giant.write_all(&(1u64 << 30).to_be_bytes()).await.unwrap();
    let _enough = giant.write_all(&vec![0x12; 4 << 20]).await;
    closed(&mut giant).await;
    // Messages to actors before authentication.
    let (mut eager, welcome) = welcomed(&address).await;
    let mut frame = 6u64.to_be_bytes().to_vec();
    frame.extend_from_slice(&[0x12, 4, 0x0a, 2, 0x08, welcome.gateway as u8]);
    for _ in 0..1000 {
        if eager.write_all(&frame).await.is_err() {
            break;
        }
    }
    closed(&mut eager).await;
    eventually("all are closed", || {
        nodes[1].transport.totals().unauthenticated >= 2
    })
    .await;
    assert_eq!(nodes[1].transport.totals().sessions, 1, "the one with n2");
    unharmed(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_unauthenticated_sessions_are_rejected_temporarily() {
    let (nodes, address) = two_of_three(quick()).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(welcomed(&address).await.0);
    }
    let mut more = TcpStream::connect(&address).await.unwrap();
    more.write_all(&hello().encode()).await.unwrap();
    assert!(matches!(
        answer(&mut more).await,
        PeerAnswer::Refused(Error::Overloaded(_))
    ));
    for stream in &mut streams {
        closed(stream).await;
    }
    unharmed(nodes).await;
}
