//! Startup, failures to start, and shutdown of a node.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::level::Level;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_protocol::telemetry::TimelineEvent;
use serde_json::json;

use crate::client::{Client, get, put};
use crate::process::{Cluster, Node, NodeOptions};
use crate::until;

/// A ready node, alone in its cluster.
pub(crate) fn lone(directory: &std::path::Path) -> Node {
    let mut node = Node::spawn(directory, &NodeOptions::new(1));
    let member = node.member();
    node.join(&[member]);
    node
}

/// Starts a node that must fail to start; returns the error's name and message.
pub(crate) fn refused(directory: &std::path::Path, options: &NodeOptions) -> (String, String) {
    let mut node = Node::spawn(directory, options);
    let mut line = node.line();
    if line["ready"] == false {
        let member =
            json!([{"id": options.id, "peer": line["bound"]["peer"], "client": line["bound"]["client"]}]);
        node.send_members(member.as_array().unwrap());
        line = node.line();
    }
    let (status, errors) = node.wait_with_errors();
    assert_eq!(status, Some(1), "{line}");
    let message = line["message"]
        .as_str()
        .unwrap_or_else(|| panic!("no message: {line}"))
        .to_owned();
    assert_eq!(errors, format!("quorate node: {message}\n"), "one line on stderr");
    (line["error"].as_str().unwrap().to_owned(), message)
}

#[test]
fn signals_and_a_closed_pipe_stop_it_gracefully() {
    let directory = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let mut node = lone(directory.path());
        node.signal(signal);
        assert_eq!(node.wait().code(), Some(0), "SIG{signal}");
    }
    let mut node = lone(directory.path());
    node.close_stdin();
    assert_eq!(node.wait().code(), Some(0), "the parent closed the pipe");
    let mut early = Node::spawn(directory.path(), &NodeOptions::new(1));
    early.member();
    early.signal("TERM");
    assert_eq!(early.wait().code(), Some(0), "before it has the members");
}

#[test]
fn a_stop_is_quick_with_any_clients() {
    for end in ["the parent's", "SIGTERM"] {
        let mut cluster = Cluster::start(3);
        let keyspace = cluster.nodes[0].client().create("busy", 3).id;
        let address = |node: &Node| node.address("client");
        // Idle clients, and busy ones.
        let _silent: Vec<TcpStream> = cluster
            .nodes
            .iter()
            .map(|node| TcpStream::connect(address(node)).unwrap())
            .collect();
        let mut busy: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
        for client in &mut busy {
            let puts = (0..2_000).map(|n| put(keyspace, &format!("key-{n}"), "value", Level::All, n));
            client.send(puts).unwrap();
        }
        let started = Instant::now();
        for node in &mut cluster.nodes {
            match end {
                "SIGTERM" => node.signal("TERM"),
                _ => node.close_stdin(),
            }
        }
        for node in &mut cluster.nodes {
            assert_eq!(node.wait().code(), Some(0), "{end} end");
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "{end} end took {took:?}");
    }
}

#[test]
fn a_parent_that_dies_before_it_has_sent_the_members_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::spawn(directory.path(), &NodeOptions::new(1));
    node.member();
    node.close_stdin();
    assert_eq!(node.line()["error"], "ParentGone");
    assert_eq!(node.wait().code(), Some(1));
}

#[test]
fn a_directory_in_use_or_of_another_node_is_rejected_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = lone(path);
    let (error, message) = refused(path, &NodeOptions::new(1));
    assert_eq!(error, "DirectoryInUse");
    assert!(
        message.contains("n1") && message.contains("stop that node"),
        "{message}"
    );
    node.signal("TERM");
    node.wait();

    let foreign = NodeOptions {
        cluster: "other".to_owned(),
        ..NodeOptions::new(1)
    };
    assert_eq!(refused(path, &foreign).0, "ForeignCluster");
    let foreign = NodeOptions::new(2).with(json!({"data_dir": path.join("n1")}));
    let (error, message) = refused(path, &foreign);
    assert_eq!(error, "ForeignNode");
    assert!(message.contains("belongs to node n1"), "{message}");
}

#[test]
fn a_node_waits_for_another_one_to_release_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = lone(directory.path());
    let patient = NodeOptions::new(1).with(json!({"lock_timeout_ms": 60_000}));
    let mut second = Node::spawn(directory.path(), &patient);
    let member = second.member();
    second.send_members(&[member]);
    // A signal ends the wait.
    for knows_members in [false, true] {
        let mut third = Node::spawn(directory.path(), &patient);
        let member = third.member();
        if knows_members {
            third.send_members(&[member]);
        }
        third.signal("TERM");
        assert_eq!(third.wait().code(), Some(0));
    }
    first.signal("TERM");
    first.wait();
    second.await_ready();
}

#[test]
fn a_cluster_can_be_formed_anew_until_it_is_formed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let options = |cluster: &str, forming: bool| NodeOptions {
        cluster: cluster.to_owned(),
        extra: json!({"forming": forming, "vnodes": cluster.len()}),
        ..NodeOptions::new(1)
    };
    let ready = |cluster: &str, forming| {
        let mut node = Node::spawn(path, &options(cluster, forming));
        let member = node.member();
        node.join(&[member]);
        node
    };
    let create = |node: &Node| {
        let settings = KeyspaceSettings::quorum("kept", 1);
        node.client().ask(Request::CreateKeyspace(settings))
    };
    for cluster in ["a", "bc"] {
        let mut node = ready(cluster, true);
        let refusal = create(&node).unwrap_err();
        assert!(matches!(refusal, Error::Unavailable { .. }), "{refusal}");
        assert!(refusal.is_definite());
        assert_eq!(
            node.client().ask(Request::ListKeyspaces),
            Ok(Response::Keyspaces(vec![]))
        );
        node.kill();
    }
    let mut node = ready("def", true);
    node.send_line(&json!({"formed": true}));
    assert_eq!(node.line(), json!({"formed": true}));
    create(&node).unwrap();
    node.kill();
    let (error, message) = refused(path, &options("def", true));
    assert_eq!(error, "AlreadyFormed");
    assert!(message.contains("\"def\""), "{message}");
    assert_eq!(ready("def", false).client().status().keyspaces, ["kept"]);
}

#[test]
fn a_port_in_use_and_invalid_settings_are_rejected_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let options = NodeOptions::new(1).with(json!({"listen": {"client": address}}));
    let (error, message) = refused(directory.path(), &options);
    assert_eq!(error, "AddressInUse");
    assert!(
        message.contains("listen.client") && message.contains(&address),
        "{message}"
    );
    let options = NodeOptions::new(1).with(json!({"vnode": 1}));
    let (error, message) = refused(directory.path(), &options);
    assert_eq!(error, "InvalidConfig");
    assert!(message.contains("vnode"), "{message}");
    let options = NodeOptions::new(1).with(json!({"listen": {"peer": "0.0.0.0:0"}}));
    assert_eq!(refused(directory.path(), &options).0, "InvalidConfig");
}

#[test]
fn keyspaces_survive_a_restart_and_unknown_ones_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = lone(directory.path());
    let keyspace = node.client().create("logs", 1);
    node.kill();
    let mut node = lone(directory.path());
    let mut client = node.client();
    assert_eq!(client.status().keyspaces, ["logs"]);
    assert_eq!(client.create("logs", 1), keyspace);
    let Err(Error::NotFound(message)) = client.ask(get(KeyspaceId(77), "a", Level::One)) else {
        panic!("found")
    };
    assert!(message.contains("k77") && message.contains("logs"), "{message}");
    node.kill();
}

#[test]
fn every_listener_survives_malformed_input() {
    let directory = tempfile::tempdir().unwrap();
    let node = lone(directory.path());
    let mut client = node.client();
    for listener in ["peer", "client", "http"] {
        for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 70_000], &[0; 5], b""] {
            let mut stream = TcpStream::connect(node.address(listener)).unwrap();
            let _closed = stream.write_all(garbage);
        }
    }
    client.status();
    let text = node.http("/metrics");
    assert!(
        text.contains("quorate_process_resident_memory_bytes{node=\"n1\"}"),
        "{text}"
    );
}

/// Loses the directory of one of two nodes: that node exits with the reason, the other keeps running and reports it.
fn lose_directory(lost: usize) {
    let mut cluster = Cluster::start(2);
    cluster.nodes[lost].kill();
    let name = format!("n{}", lost + 1);
    std::fs::remove_dir_all(cluster.directory.path().join(&name)).unwrap();
    let mut node = cluster.spawn_again(lost);
    node.send_members(&cluster.members);
    let (status, errors) = node.wait_with_errors();
    // Before or after it was ready.
    assert!(matches!(status, Some(1 | 70)), "{status:?}");
    let explained =
        |reason: &str| reason.contains(&name) && reason.contains("directory was lost or replaced");
    assert!(explained(&errors), "{errors}");
    let mut client = cluster.nodes[1 - lost].client();
    let reason = until("the rejection", || {
        client
            .events()
            .into_iter()
            .find_map(|occurrence| match occurrence.event {
                TimelineEvent::PeerRefused { reason, .. } => Some(reason),
                _ => None,
            })
    });
    assert!(explained(&reason), "{reason}");
    assert!(client.status().peers.iter().all(|peer| !peer.up));
}

#[test]
fn a_dialling_peer_that_lost_its_directory_is_rejected() {
    lose_directory(0);
}

#[test]
fn a_peer_that_lost_its_directory_is_rejected() {
    lose_directory(1);
}

/// One of two nodes is started with another setting: both report it and reject the connection.
#[test]
fn nodes_with_another_hash_reject_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut nodes = [1, 2].map(|id| {
        let hash = if id == 1 { "murmur3" } else { "md5" };
        Node::spawn(
            directory.path(),
            &NodeOptions::new(id).with(json!({"hash": hash})),
        )
    });
    let members = nodes.each_mut().map(Node::member);
    for node in &mut nodes {
        node.join(&members);
    }
    for node in &nodes {
        let mut client = node.client();
        let reason = until("the rejection", || {
            client
                .events()
                .into_iter()
                .find_map(|occurrence| match occurrence.event {
                    TimelineEvent::PeerRefused { reason, .. } => Some(reason),
                    _ => None,
                })
        });
        assert!(
            reason.contains("n1 was started with hash=murmur3 but n2 with hash=md5"),
            "{reason}"
        );
        assert!(client.status().peers.iter().all(|peer| !peer.up));
    }
}

#[test]
fn a_node_does_not_start_with_other_settings_than_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = lone(path);
    node.client().create("kept", 1);
    node.kill();
    for (extra, had) in [
        (json!({"hash": "xxh3"}), "hash=murmur3"),
        (json!({"vnodes": 7}), "vnodes=150"),
    ] {
        let (error, message) = refused(path, &NodeOptions::new(1).with(extra));
        assert_eq!(error, "ForeignLayout");
        assert!(message.contains(had) && message.contains("n1"), "{message}");
    }
    lone(path).kill();
}
