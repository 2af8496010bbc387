//! Admission of a known node: only with the same data directory, and never with an earlier boot.

use std::time::Duration;

use quorate_core::ids::{BootId, NodeId, ReplicaId};
use quorate_node::transport::{LocalIdentity, TransportConfig};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::Topology;
use tokio::net::TcpListener;

use crate::support::{Node, eventually, identity, listeners, stop, topology};

async fn listener(topology: &Topology, id: u16) -> TcpListener {
    TcpListener::bind(&topology.member(NodeId(id)).unwrap().peer_address)
        .await
        .unwrap()
}

fn rejections(node: &Node) -> Vec<String> {
    let recorded = node.memory.recorded.lock().unwrap();
    let reasons = recorded.events.iter().filter_map(|event| match event {
        TimelineEvent::PeerRefused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

/// n1 keeps running; n2 is restarted as `again`, which n1 must reject with an error that contains these words.
async fn is_rejected(again: LocalIdentity, between: &[LocalIdentity], words: &str) {
    let (mut listeners, addresses) = listeners(2).await;
    let topology = topology(&addresses);
    let config = TransportConfig::default();
    let second = listeners.pop().unwrap();
    let first = Node::start(
        config.clone(),
        listeners.pop().unwrap(),
        &topology,
        identity(1, 1),
    )
    .await;
    let mut other = Node::start(config.clone(), second, &topology, identity(2, 10)).await;
    for identity in between {
        eventually("n1 sees n2", || first.sees(NodeId(2))).await;
        other.transport.stop().await;
        // Otherwise its last session could be taken for the next node's.
        eventually("n1 sees that n2 is down", || !first.sees(NodeId(2))).await;
        other = Node::start(config.clone(), listener(&topology, 2).await, &topology, *identity).await;
    }
    eventually("n1 sees n2", || first.sees(NodeId(2))).await;
    other.transport.stop().await;
    eventually("n1 sees that n2 is down", || !first.sees(NodeId(2))).await;
    let again = Node::start(config, listener(&topology, 2).await, &topology, again).await;
    eventually("the rejection", || {
        rejections(&first).iter().any(|reason| reason.contains(words))
    })
    .await;
    assert!(!first.sees(NodeId(2)));
    stop(vec![first, again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_data_directory_is_rejected() {
    let foreign = LocalIdentity {
        replica: ReplicaId::new(NodeId(2), 99),
        ..identity(2, 11)
    };
    is_rejected(foreign, &[], "another data directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_boot_is_rejected() {
    is_rejected(identity(2, 10), &[identity(2, 11)], "later boot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_secret_gets_no_session() {
    let (mut listeners, addresses) = listeners(2).await;
    let topology = topology(&addresses);
    let config = |secret: &[u8]| TransportConfig {
        secret: Some(secret.to_vec()),
        authentication: Duration::from_millis(300),
        ..TransportConfig::default()
    };
    let second = listeners.pop().unwrap();
    let first = Node::start(
        config(b"one"),
        listeners.pop().unwrap(),
        &topology,
        identity(1, 1),
    )
    .await;
    let other = Node::start(config(b"two"), second, &topology, identity(2, 2)).await;
    eventually("several attempts", || other.transport.totals().accepted >= 3).await;
    assert_eq!(
        first.transport.totals().sessions + other.transport.totals().sessions,
        0
    );
    assert!(!first.sees(NodeId(2)) && !other.sees(NodeId(1)));
    other.transport.stop().await;
    let boot = LocalIdentity {
        boot: BootId(3),
        ..identity(2, 3)
    };
    let friend = Node::start(config(b"one"), listener(&topology, 2).await, &topology, boot).await;
    eventually("the right secret", || {
        first.sees(NodeId(2)) && friend.sees(NodeId(1))
    })
    .await;
    stop(vec![first, friend]).await;
}
