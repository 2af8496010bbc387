//! Routing of operations.

use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};

use super::super::{CallOptions, ClientEvent};
use super::harness::*;

#[test]
fn operations_go_to_the_first_replica_of_their_key() {
    let mut cluster = Harness::ready(5);
    for text in ["a", "b", "c", "d", "user-123"] {
        let replicas = cluster.replicas(text);
        for request in [put(text), get(text), put(text)] {
            cluster.submit(request);
            let arrived = cluster.take();
            assert_eq!(arrived.node, replicas[0], "{text}");
        }
    }
}

#[test]
fn the_next_replica_takes_over_for_one_that_is_down_and_gives_back() {
    let mut cluster = Harness::ready(5);
    let replicas = cluster.replicas("a");
    let first = replicas[0].0;
    cluster.behaviour.insert(address(first), Behaviour::Refusing);
    cluster.cut(first, u64::MAX);
    for _ in 0..3 {
        cluster.submit(put("a"));
        assert_eq!(cluster.take().node, replicas[1]);
        cluster.advance(Duration::from_millis(300));
    }
    cluster.behaviour.insert(address(first), Behaviour::Up);
    cluster.advance(Duration::from_secs(3));
    cluster.submit(put("a"));
    assert_eq!(cluster.take().node, replicas[0]);
}

#[test]
fn a_member_without_the_key_serves_when_all_replicas_are_down() {
    let mut cluster = Harness::ready(5);
    let replicas = cluster.replicas("a");
    for node in &replicas {
        cluster.behaviour.insert(address(node.0), Behaviour::Refusing);
        cluster.cut(node.0, u64::MAX);
    }
    cluster.submit(get("a"));
    assert!(!replicas.contains(&cluster.take().node));
}

#[test]
fn a_new_client_waits_for_its_first_connection_to_the_preferred_node() {
    let mut cluster = Harness::with_endpoints(3, vec![address(1), address(2)]);
    let slow = (1..=3).find(|node| *node == 3).unwrap();
    let text = (0..100)
        .map(|number| format!("k{number}"))
        .find(|text| cluster.replicas(text)[0] == NodeId(slow))
        .unwrap();
    cluster.behaviour.insert(address(slow), Behaviour::Silent);
    cluster.event(ClientEvent::Start);
    assert_eq!(cluster.opened, vec![], "n3 is being dialled");
    cluster.submit(put(&text));
    assert!(cluster.arrived.is_empty());
    cluster.advance(Duration::from_millis(1100));
    assert_eq!(cluster.opened, vec![Ok(())]);
    assert_eq!(cluster.take().node, cluster.replicas(&text)[1]);
}

#[test]
fn a_silent_node_is_asked_then_suspected_and_its_reads_move() {
    let mut cluster = Harness::ready(3);
    let replicas = cluster.replicas("a");
    let first = replicas[0].0;
    cluster.behaviour.insert(address(first), Behaviour::Silent);
    let read = cluster.submit(get("a"));
    let write = cluster.submit(put("a"));
    cluster.advance(Duration::from_millis(900));
    assert!(cluster.arrived.is_empty(), "probed, not suspected yet");
    cluster.advance(Duration::from_millis(200));
    assert!(cluster.core.connected_nodes()[&replicas[0]]);
    let moved = cluster.take();
    assert_eq!(moved.node, replicas[1]);
    assert!(
        matches!(moved.frame.request, Request::Get { .. }),
        "a put stays where it may have been seen"
    );
    cluster.reply(&moved, Ok(entry()));
    assert!(cluster.outcome(read).result.is_ok());
    cluster.submit(put("a"));
    assert_eq!(cluster.take().node, replicas[1], "new operations avoid a suspect");
    cluster.advance(Duration::from_secs(2));
    assert_eq!(
        cluster.error(write),
        &Error::OutcomeUnknown {
            acked: 0,
            required: 2,
            reason: None,
        }
    );
}

#[test]
fn any_byte_clears_the_suspicion() {
    let mut cluster = Harness::ready(3);
    let replicas = cluster.replicas("a");
    let first = replicas[0].0;
    cluster.submit(put("a"));
    let arrived = cluster.take();
    cluster.behaviour.insert(address(first), Behaviour::Silent);
    cluster.advance(Duration::from_millis(1100));
    assert!(cluster.core.connected_nodes()[&replicas[0]]);
    cluster.behaviour.insert(address(first), Behaviour::Up);
    cluster.reply(&arrived, Ok(written()));
    assert!(!cluster.core.connected_nodes()[&replicas[0]]);
    cluster.submit(put("a"));
    assert_eq!(cluster.take().node, replicas[0]);
}

#[test]
fn a_live_node_that_is_slow_with_an_answer_is_not_suspected() {
    let mut cluster = Harness::ready(3);
    let first = cluster.replicas("a")[0];
    cluster.submit_with(get("a"), CallOptions::timeout(Duration::from_secs(60)));
    cluster.advance(Duration::from_secs(30));
    assert_eq!(cluster.arrived.len(), 1, "the read was not moved");
    assert!(!cluster.core.connected_nodes()[&first]);
}

#[test]
fn a_request_for_one_node_goes_there_or_says_why_not() {
    let mut cluster = Harness::ready(3);
    let on = |node| CallOptions::timeout(Duration::from_secs(2)).on(NodeId(node));
    cluster.submit_with(Request::Status, on(3));
    assert_eq!(cluster.take().node, NodeId(3));
    let unknown = cluster.submit_with(Request::Status, on(9));
    assert_eq!(
        cluster.error(unknown),
        &Error::NotFound("n9 is not a member of the cluster: the members are n1, n2, n3".to_owned())
    );
    cluster.behaviour.insert(address(2), Behaviour::Refusing);
    cluster.cut(2, u64::MAX);
    let down = cluster.submit_with(Request::Status, on(2));
    cluster.advance(Duration::from_millis(300));
    assert_eq!(
        cluster.error(down),
        &Error::ConnectionRefused(
            "cannot reach n2 at n2:7400 (connection refused): check that it runs".to_owned()
        )
    );
}

#[test]
fn a_keyspace_that_another_client_made_is_learned_on_first_use() {
    let mut cluster = Harness::ready(5);
    let mut keyspace = Keyspace {
        id: quorate_core::ids::KeyspaceId(3),
        settings: KeyspaceSettings::quorum("orders", 3),
        groups: Vec::new(),
    };
    cluster.keyspaces.push(keyspace.clone());
    let request = |text: &str| Request::Get {
        keyspace: keyspace.id,
        key: key(text),
        level: None,
    };
    cluster.submit(request("a"));
    cluster.arrived.clear();
    for text in ["a", "b", "c", "d"] {
        cluster.submit(request(text));
        assert_eq!(cluster.take().node, cluster.replicas(text)[0], "{text}");
    }
    // A keyspace that the client creates itself is known from the response.
    keyspace.id.0 += 1;
    let create = cluster.submit(Request::CreateKeyspace(keyspace.settings.clone()));
    let arrived = cluster.take();
    let created = quorate_protocol::api::Response::Keyspace {
        keyspace: keyspace.clone(),
        created: true,
    };
    cluster.reply(&arrived, Ok(created));
    assert!(cluster.outcome(create).result.is_ok());
    cluster.submit(Request::Get {
        keyspace: keyspace.id,
        key: key("z"),
        level: None,
    });
    assert_eq!(cluster.take().node, cluster.replicas("z")[0]);
}

#[test]
fn a_newer_topology_is_followed() {
    let mut cluster = Harness::ready(3);
    cluster.topology = topology(4);
    cluster.topology.generation = 2;
    cluster.behaviour.insert(address(4), Behaviour::Up);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(cluster.core.connected_nodes().len(), 4);
    assert_eq!(cluster.core.topology().unwrap().generation, 2);
    let text = (0..100)
        .map(|number| format!("k{number}"))
        .find(|text| cluster.replicas(text)[0] == NodeId(4))
        .unwrap();
    cluster.submit(get(&text));
    assert_eq!(cluster.take().node, NodeId(4));
}
