//! Connections: handshake, rejection, redialling, timeouts.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_protocol::api::ServerHello;

use super::super::{ClientConfig, ClientCore, ClientEvent};
use super::harness::*;

fn welcome(cluster: ClusterId, node: u16) -> Behaviour {
    Behaviour::Greeting(ServerHello::Welcome {
        version: 1,
        features: 0,
        cluster,
        node: NodeId(node),
        boot: BootId(1),
    })
}

#[test]
fn one_endpoint_is_enough_to_find_all_nodes() {
    let mut cluster = Harness::with_endpoints(5, vec![address(2)]);
    cluster.event(ClientEvent::Start);
    assert_eq!(cluster.opened, vec![Ok(())]);
    assert_eq!(cluster.core.connected_nodes().len(), 5);
    assert_eq!(
        cluster.dialled.len(),
        5,
        "the connection to the endpoint is kept for its node"
    );
}

#[test]
fn dead_endpoints_and_aliases_do_no_harm() {
    let endpoints = vec!["nowhere:1".to_owned(), address(1), address(1), address(2)];
    let mut cluster = Harness::with_endpoints(3, endpoints);
    cluster.event(ClientEvent::Start);
    assert_eq!(cluster.opened, vec![Ok(())]);
    assert_eq!(cluster.core.connected_nodes().len(), 3);
    assert_eq!(cluster.open.len(), 3, "one connection per node");
}

#[test]
fn no_endpoint_answers() {
    let mut cluster = Harness::with_endpoints(1, vec!["h1:1".to_owned(), "h2:2".to_owned()]);
    cluster.event(ClientEvent::Start);
    let expected = "cannot reach the cluster at h1:1 (connection refused), h2:2 (connection refused): check that \
                    nodes run there and that the addresses are right";
    assert_eq!(
        cluster.opened,
        vec![Err(Error::ConnectionLost(expected.to_owned()))]
    );
    let op = cluster.submit(put("a"));
    cluster.advance(Duration::from_secs(1));
    assert!(matches!(cluster.error(op), Error::ConnectionLost(_)));
}

#[test]
fn a_refusal_says_who_refused_and_why() {
    let mut cluster = Harness::with_endpoints(1, vec![address(1)]);
    let refusal = ServerHello::Refused(Error::Refused(
        "versions 2 to 3 only: upgrade the client".to_owned(),
    ));
    cluster.behaviour.insert(address(1), Behaviour::Greeting(refusal));
    cluster.event(ClientEvent::Start);
    let [Err(Error::Refused(text))] = &cluster.opened[..] else {
        panic!("{:?}", cluster.opened);
    };
    assert!(text.contains("n1:7400: versions 2 to 3 only"), "{text}");
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Harness::new(3);
    cluster.behaviour.insert(address(3), welcome(ClusterId(1), 3));
    cluster.event(ClientEvent::Start);
    assert_eq!(cluster.opened, vec![Ok(())]);
    assert_eq!(
        cluster.core.connected_nodes().into_keys().collect::<Vec<_>>(),
        [NodeId(1), NodeId(2)]
    );
}

#[test]
fn an_address_with_another_node_behind_it_is_not_used() {
    let mut cluster = Harness::with_endpoints(3, vec![address(1)]);
    cluster.behaviour.insert(address(3), welcome(CLUSTER, 2));
    cluster.event(ClientEvent::Start);
    assert_eq!(
        cluster.core.connected_nodes().into_keys().collect::<Vec<_>>(),
        [NodeId(1), NodeId(2)]
    );
}

#[test]
fn something_that_is_not_a_node_is_named() {
    let mut cluster = Harness::with_endpoints(1, vec![address(1)]);
    cluster.behaviour.insert(address(1), Behaviour::Silent);
    cluster.event(ClientEvent::Start);
    let connection = cluster.connection_to(1);
    cluster.event(ClientEvent::Connected { connection });
    cluster.event(ClientEvent::Received {
        connection,
        bytes: Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    });
    let [Err(Error::Refused(text))] = &cluster.opened[..] else {
        panic!("{:?}", cluster.opened);
    };
    assert!(
        text.contains("does not speak Quorate's client protocol"),
        "{text}"
    );
}

#[test]
fn a_dial_that_hangs_is_given_up() {
    let mut cluster = Harness::with_endpoints(1, vec![address(1)]);
    cluster.behaviour.insert(address(1), Behaviour::Silent);
    cluster.event(ClientEvent::Start);
    cluster.advance(Duration::from_secs(4));
    let [Err(Error::ConnectionLost(text))] = &cluster.opened[..] else {
        panic!("{:?}", cluster.opened);
    };
    assert!(text.contains("n1:7400 (no answer within 3 s)"), "{text}");
}

#[test]
fn redialling_backs_off_and_stops_when_it_succeeds() {
    let mut cluster = Harness::ready(3);
    cluster.behaviour.insert(address(2), Behaviour::Refusing);
    cluster.dialled.clear();
    cluster.cut(2, u64::MAX);
    cluster.advance(Duration::from_secs(20));
    let attempts = cluster.dialled.len();
    assert!((12..30).contains(&attempts), "{attempts} attempts in 20 s");
    cluster.behaviour.insert(address(2), Behaviour::Up);
    cluster.advance(Duration::from_secs(3));
    assert_eq!(cluster.core.connected_nodes().len(), 3);
    cluster.dialled.clear();
    cluster.advance(Duration::from_secs(20));
    assert!(cluster.dialled.is_empty());
}

#[test]
fn a_connection_that_stays_silent_is_given_up_and_dialled_anew() {
    let mut cluster = Harness::ready(3);
    cluster.behaviour.insert(address(2), Behaviour::Silent);
    cluster.dialled.clear();
    cluster.advance(Duration::from_secs(12));
    assert!(cluster.core.connected_nodes()[&NodeId(2)], "suspected");
    assert!(cluster.dialled.is_empty());
    cluster.advance(Duration::from_secs(5));
    assert!(!cluster.core.connected_nodes().contains_key(&NodeId(2)));
    assert!(!cluster.dialled.is_empty());
}

#[test]
fn nonsense_from_a_node_ends_the_connection() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(put("a"));
    let arrived = cluster.take();
    cluster.event(ClientEvent::Received {
        connection: arrived.connection,
        bytes: Bytes::from_static(&[0xff; 64]),
    });
    assert!(!cluster.open.contains_key(&arrived.connection));
    assert!(matches!(cluster.error(op), Error::OutcomeUnknown { .. }));
}

#[test]
fn a_client_needs_an_endpoint_and_short_credentials() {
    let refused = ClientCore::new(ClientConfig::new(Vec::new(), 1)).unwrap_err();
    assert_eq!(
        refused,
        Error::invalid("no endpoint: give at least one node as host:port")
    );
    let mut config = ClientConfig::new(vec![address(1)], 1);
    config.credentials = Bytes::from(vec![0; 1 << 20]);
    assert!(matches!(ClientCore::new(config), Err(Error::InvalidArgument(_))));
}

/// The same cluster on other ports: same members, same generation.
fn move_cluster(cluster: &mut Harness) {
    for member in &mut cluster.topology.members {
        let address = member.client_address.replace("7400", "8400");
        let old = std::mem::replace(&mut member.client_address, address.clone());
        cluster.behaviour.insert(old, Behaviour::Refusing);
        cluster.behaviour.insert(address, Behaviour::Up);
    }
}

fn is_at_its_new_addresses(cluster: &Harness) -> bool {
    let mut open: Vec<&str> = cluster
        .open
        .values()
        .map(|(address, _)| address.as_str())
        .collect();
    open.sort_unstable();
    cluster.core.connected_nodes().len() == 3
        && cluster.core.topology() == Some(&cluster.topology)
        && open.iter().filter(|address| address.ends_with(":8400")).count() >= 2
}

#[test]
fn changed_addresses_are_learned_without_a_new_generation() {
    let mut cluster = Harness::ready(3);
    move_cluster(&mut cluster);
    // One node has kept its address; the others are discovered through it.
    cluster.behaviour.insert(address(1), Behaviour::Up);
    for node in 1..=3 {
        cluster.cut(node, u64::MAX);
    }
    cluster.advance(Duration::from_secs(3));
    assert!(is_at_its_new_addresses(&cluster), "{:?}", cluster.open);
}

#[test]
fn when_no_known_address_answers_the_endpoints_are_tried_again() {
    let alias = "n2:9999".to_owned();
    let mut cluster = Harness::with_endpoints(3, vec![address(1), alias.clone()]);
    cluster.event(ClientEvent::Start);
    assert_eq!(cluster.core.connected_nodes().len(), 3);
    move_cluster(&mut cluster);
    for node in 1..=3 {
        cluster.cut(node, u64::MAX);
    }
    cluster.advance(Duration::from_secs(10));
    assert!(cluster.core.connected_nodes().is_empty());
    let op = cluster.submit(get("a"));
    cluster.behaviour.insert(alias.clone(), Behaviour::Up);
    cluster.advance(Duration::from_millis(500));
    assert!(is_at_its_new_addresses(&cluster), "{:?}", cluster.open);
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(entry()));
    assert!(cluster.outcome(op).result.is_ok());
    cluster.dialled.clear();
    cluster.advance(Duration::from_secs(20));
    assert!(cluster.dialled.is_empty(), "{:?}", cluster.dialled);
}
