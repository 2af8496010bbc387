//! Acknowledged writes survive the death of processes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::level::Level;
use quorate_node::recording;
use quorate_protocol::api::Response;
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TimelineEvent;
use serde_json::json;

use crate::client::{Client, get, put};
use crate::process::{Cluster, Node, NodeOptions};
use crate::until;

/// Requests in flight per writer.
const PIPELINE: usize = 32;
/// Acknowledged writes between two kills.
const BETWEEN: usize = 200;

/// The shared state of the writers.
struct Load {
    keyspace: KeyspaceId,
    addresses: Vec<SocketAddr>,
    stop: AtomicBool,
    count: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
}

/// Writes unique keys through one node after the other until it is stopped.
fn write(load: &Load, writer: usize) {
    let mut next = 0;
    for address in load.addresses.iter().cycle().skip(writer) {
        if load.stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(client) = Client::try_connect(*address) {
            write_through(load, writer, &mut next, client);
        }
    }
}

fn write_through(load: &Load, writer: usize, next: &mut u64, mut client: Client) {
    let mut in_flight: VecDeque<(u64, String)> = VecDeque::new();
    while !load.stop.load(Ordering::Relaxed) || !in_flight.is_empty() {
        while in_flight.len() < PIPELINE && !load.stop.load(Ordering::Relaxed) {
            *next += 1;
            let key = format!("{writer}-{next}");
            let request = put(
                load.keyspace,
                &key,
                &key,
                Level::Quorum,
                (writer as u64) << 32 | *next,
            );
            let Some(ids) = client.send([request]) else { return };
            in_flight.push_back((ids[0], key));
        }
        let Some(answer) = client.receive() else { return };
        let index = in_flight
            .iter()
            .position(|(id, _)| *id == answer.id)
            .expect("an answer to a request");
        let (_, key) = in_flight.remove(index).expect("just found");
        match answer.response {
            Ok(Response::Written(_)) => {
                load.acknowledged.lock().unwrap().push(key);
                load.count.fetch_add(1, Ordering::Relaxed);
            }
            // The other nodes are dead or not yet connected; this outcome is expected.
            Err(Error::Unavailable { .. } | Error::OutcomeUnknown { .. } | Error::NotFound(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn twenty_rounds_of_sigkill_lose_no_acknowledged_write() {
    let mut cluster = Cluster::start(3);
    let keyspace = cluster.nodes[0].client().create("kept", 3).id;
    let load = Arc::new(Load {
        keyspace,
        addresses: cluster.nodes.iter().map(|node| node.address("client")).collect(),
        stop: AtomicBool::new(false),
        count: AtomicUsize::new(0),
        acknowledged: Mutex::default(),
    });
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let load = Arc::clone(&load);
            thread::spawn(move || write(&load, writer))
        })
        .collect();
    for round in 0..20 {
        let wanted = load.count.load(Ordering::Relaxed) + BETWEEN;
        until("writes continue", || {
            (load.count.load(Ordering::Relaxed) >= wanted).then_some(())
        });
        // One node, two nodes, and sometimes the whole cluster.
        let victims = match round % 5 {
            3 => vec![round % 3, (round + 1) % 3],
            4 => vec![0, 1, 2],
            _ => vec![round % 3],
        };
        for victim in &victims {
            cluster.nodes[*victim].kill();
        }
        for victim in victims {
            cluster.restart(victim);
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    cluster.await_links();
    let acknowledged = std::mem::take(&mut *load.acknowledged.lock().unwrap());
    assert!(acknowledged.len() >= 20 * BETWEEN);
    let mut client = cluster.nodes[1].client();
    for keys in acknowledged.chunks(256) {
        let requests = keys.iter().map(|key| get(keyspace, key, Level::Quorum));
        let ids = client.send(requests).unwrap();
        for _ in keys {
            let answer = client.receive().unwrap();
            let key = &keys[ids.iter().position(|id| *id == answer.id).unwrap()];
            let Ok(Response::Entry(entry)) = answer.response else {
                panic!("{key}: {:?}", answer.response)
            };
            let values: Vec<&[u8]> = entry
                .versions
                .iter()
                .map(|version| version.value.as_ref())
                .collect();
            assert_eq!(values, [key.as_bytes()], "{key}");
        }
    }
}

#[test]
fn a_full_store_rejects_writes_and_serves_reads() {
    let directory = tempfile::tempdir().unwrap();
    let options = NodeOptions::new(1).with(json!({"map_size_bytes": 16 << 20}));
    let mut node = Node::spawn(directory.path(), &options);
    let member = node.member();
    node.join(&[member]);
    let mut client = node.client();
    let keyspace = client.create("large", 1).id;
    let value = "x".repeat(1 << 20);
    let mut written = 0;
    let error = loop {
        assert!(written < 200, "200 MiB fit into a store of 16");
        match client.ask(put(
            keyspace,
            &format!("key-{written}"),
            &value,
            Level::One,
            written,
        )) {
            Ok(Response::Written(_)) => written += 1,
            Ok(other) => panic!("{other:?}"),
            // It was in flight when the disk became full: the role has assigned a dot and cannot revoke it.
            Err(Error::OutcomeUnknown { acked: 0, .. }) => {}
            Err(error) => break error,
        }
    };
    let Error::StorageFull(message) = error else {
        panic!("{error:?}")
    };
    let data_dir = directory.path().join("n1").display().to_string();
    for words in ["n1", &data_dir, "map_size_bytes=16777216"] {
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
    assert!(written > 0);
    for index in [0, written - 1] {
        assert_eq!(
            client.values(keyspace, &format!("key-{index}"), Level::One),
            [value.as_bytes()]
        );
    }
    let full = client
        .events()
        .into_iter()
        .any(|occurrence| occurrence.event == TimelineEvent::StorageFull);
    assert!(full, "the timeline reports it");
    let storage = client.status().storage;
    let why = storage.full.expect("the status reports it");
    assert!(
        why.contains(&data_dir) && why.contains("map_size_bytes=16777216"),
        "{why}"
    );
    let state = &storage.environments[1];
    assert_eq!((state.name.as_str(), state.limit_bytes), ("state", 16 << 20));
    assert!(
        state.used_bytes > 8 << 20 && state.used_bytes <= 16 << 20,
        "{state:?}"
    );
    let metrics = node.http("/metrics");
    for line in [
        "quorate_storage_full{node=\"n1\"} 1".to_owned(),
        "quorate_storage_limit_bytes{node=\"n1\",environment=\"state\"} 16777216".to_owned(),
        format!(
            "quorate_storage_used_bytes{{node=\"n1\",environment=\"state\"}} {}",
            state.used_bytes
        ),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    let ready = node.http("/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains(&why),
        "{ready}"
    );

    // The named remedy works.
    node.signal("TERM");
    node.wait();
    let options = NodeOptions::new(1).with(json!({"map_size_bytes": 64 << 20}));
    let mut node = Node::spawn(directory.path(), &options);
    let member = node.member();
    node.join(&[member]);
    let mut client = node.client();
    client
        .ask(put(keyspace, "more", "x", Level::One, written))
        .unwrap();
    assert_eq!(client.status().storage.full, None);
}

#[test]
fn recorded_roles_of_real_nodes_replay_to_the_same_effects() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_with(3, json!({"record_dir": directory.path()}));
    let keyspace = cluster.nodes[2].client().create("recorded", 2).id;
    for number in 0..30 {
        let mut client = cluster.nodes[number % 3].client();
        let key = format!("key-{}", number % 7);
        client
            .ask(put(keyspace, &key, "value", Level::Quorum, number as u64))
            .unwrap();
        client.values(keyspace, &key, Level::One);
    }
    cluster.restart(0);
    cluster.await_links();
    for node in &mut cluster.nodes {
        node.signal("TERM");
        assert_eq!(node.wait().code(), Some(0));
    }
    let (mut steps, mut coordinators, mut replicas) = (0, 0, 0);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        let (heading, recorded) = recording::read(&path).unwrap();
        let replayed =
            recording::replay(&heading, &recorded).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        steps += replayed;
        match heading.role {
            RoleId::Coordinator(_) => coordinators += replayed,
            RoleId::Replica(_) => replicas += replayed,
            _ => {}
        }
    }
    assert!(
        coordinators >= 60 && replicas >= 60 && steps > coordinators + replicas,
        "{steps} steps"
    );
}
