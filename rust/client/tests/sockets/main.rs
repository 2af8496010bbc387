//! The client's shell against nodes on real sockets.

mod bench;
mod driving;
mod fake;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::shell::EventCursor;
use quorate_client::{CallOptions, Client, ConnectOptions, Keyspace, OperationOptions, ScanRange, Trace};
use quorate_core::error::Error;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::KeyspaceSettings;

use fake::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

async fn users(cluster: &Cluster) -> (Client, Keyspace) {
    let client = Client::connect(cluster.endpoints(), PATIENCE).await.unwrap();
    let replicas = cluster.topology.members.len().min(3) as u8;
    let users = client
        .create_keyspace(KeyspaceSettings::quorum("users", replicas))
        .await
        .unwrap();
    (client, users)
}

fn key(number: usize) -> Key {
    Key::of(format!("k{number:05}")).unwrap()
}

fn quick() -> OperationOptions {
    OperationOptions {
        call: CallOptions::timeout(Duration::from_millis(500)),
        ..OperationOptions::default()
    }
}

#[tokio::test]
async fn what_is_put_is_got_deleted_and_scanned() {
    let cluster = Cluster::start(3).await;
    let (client, users) = users(&cluster).await;
    let options = OperationOptions::default();
    let written = users.put(key(1), "one", &options).await.unwrap();
    assert_eq!(written.value.acked.len(), 1);
    assert_eq!((written.attempts, written.trace_id), (1, None));
    let entry = users.get(key(1), &options).await.unwrap().value;
    assert_eq!(entry.versions[0].value, Bytes::from_static(b"one"));
    users.delete(key(1), &options).await.unwrap();
    assert!(
        users
            .get(key(1), &options)
            .await
            .unwrap()
            .value
            .versions
            .is_empty()
    );

    let items = (0..1000).map(|number| (key(number), Bytes::from(number.to_string())));
    let written = users.put_many(items, &options).await;
    assert_eq!(written.len(), 1000);
    assert!(written.iter().all(Result::is_ok));
    let entries = users.get_many((0..1001).map(key), &options).await;
    for (number, entry) in entries.iter().enumerate() {
        let versions = &entry.as_ref().unwrap().value.versions;
        match number {
            1000 => assert!(versions.is_empty()),
            _ => assert_eq!(versions[0].value, number.to_string().as_bytes()),
        }
    }
    let range = ScanRange {
        start: Some(key(10)),
        end: Some(key(990)),
        page: 70,
        ..ScanRange::default()
    };
    let mut scan = users.scan(range, &options);
    let mut seen = Vec::new();
    while let Some((key, _)) = scan.next().await.unwrap() {
        seen.push(key);
    }
    assert_eq!(seen, (10..990).map(key).collect::<Vec<Key>>());
    assert_eq!(client.keyspaces().await.unwrap().len(), 1);
}

#[tokio::test]
async fn operations_are_spread_over_the_nodes() {
    let cluster = Cluster::start(3).await;
    let (_client, users) = users(&cluster).await;
    users
        .get_many((0..3000).map(key), &OperationOptions::default())
        .await;
    let requests = cluster.shared.requests.lock().unwrap().clone();
    for count in requests.values() {
        assert!((700..1300).contains(count), "{requests:?}");
    }
}

#[tokio::test]
async fn keyspaces_are_found_by_name_or_said_to_be_missing() {
    let cluster = Cluster::start(1).await;
    let (client, users) = users(&cluster).await;
    let found = client.keyspace("users").await.unwrap();
    assert_eq!(found.definition(), users.definition());
    let missing = client.keyspace("orders").await.err().unwrap();
    assert_eq!(
        missing,
        Error::NotFound("there is no keyspace \"orders\" (known: users): create it".to_owned())
    );
}

#[tokio::test]
async fn a_killed_node_costs_no_reads_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let (client, users) = users(&cluster).await;
    let items = (0..300).map(|number| (key(number), Bytes::from_static(b"v")));
    users.put_many(items, &OperationOptions::default()).await;
    let reading = tokio::spawn({
        let users = users.clone();
        async move {
            for _ in 0..20 {
                for entry in users
                    .get_many((0..300).map(key), &OperationOptions::default())
                    .await
                {
                    assert_eq!(entry.unwrap().value.versions.len(), 1);
                }
            }
        }
    });
    cluster.kill(NodeId(2)).await;
    reading.await.unwrap();
    let down = client.status(NodeId(2)).await.unwrap_err();
    assert!(
        matches!(&down, Error::ConnectionRefused(text) if text.contains("cannot reach n2")),
        "{down}"
    );
    cluster.restart(NodeId(2)).await;
    let back = async {
        while client.status(NodeId(2)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
}

#[tokio::test]
async fn a_write_under_way_when_its_node_dies_is_unknown() {
    let mut cluster = Cluster::start(1).await;
    let (_client, users) = users(&cluster).await;
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let write = tokio::spawn({
        let users = users.clone();
        async move { users.put(key(1), "v", &OperationOptions::default()).await }
    });
    let arrived = async {
        // One request was the creation of the keyspace.
        while cluster.shared.requests.lock().unwrap().values().sum::<u64>() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
    cluster.kill(NodeId(1)).await;
    let error = write.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::OutcomeUnknown {
                acked: 0,
                required: 1,
                reason: Some(_),
            }
        ),
        "{error:?}"
    );
    let after = users.put(key(1), "v", &quick()).await.unwrap_err();
    assert!(
        matches!(after, Error::ConnectionLost(_) | Error::ConnectionRefused(_)),
        "{after:?}"
    );
}

#[tokio::test]
async fn deadlines_are_kept_by_the_client() {
    let cluster = Cluster::start(3).await;
    let (_client, users) = users(&cluster).await;
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let (write, read) = (key(1), key(2));
    let options = quick();
    let (write, read) = tokio::join!(users.put(write, "v", &options), users.get(read, &options));
    assert_eq!(
        write.unwrap_err(),
        Error::OutcomeUnknown {
            acked: 0,
            required: 2,
            reason: None,
        }
    );
    assert_eq!(
        read.unwrap_err(),
        Error::ReadTimeout {
            answered: 0,
            required: 2
        }
    );
}

#[tokio::test]
async fn large_values_go_both_ways() {
    let cluster = Cluster::start(1).await;
    let (_client, users) = users(&cluster).await;
    let value = Bytes::from(vec![7; 1 << 20]);
    let items = (0..40).map(|number| (key(number), value.clone()));
    assert!(
        users
            .put_many(items, &OperationOptions::default())
            .await
            .iter()
            .all(Result::is_ok)
    );
    for entry in users
        .get_many((0..40).map(key), &OperationOptions::default())
        .await
    {
        assert_eq!(entry.unwrap().value.versions[0].value, value);
    }
}

#[tokio::test]
async fn dropping_a_call_does_no_harm() {
    let cluster = Cluster::start(1).await;
    let (client, users) = users(&cluster).await;
    let options = OperationOptions::default();
    for _ in 0..100 {
        drop(client.call(Request::Status, CallOptions::default()));
        // Polled once, so that the request is in flight, and dropped.
        tokio::select! {
            biased;
            _ = users.put(key(1), "v", &options) => {}
            () = std::future::ready(()) => {}
        }
    }
    users
        .put(key(2), "v", &OperationOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn closing_ends_what_is_in_flight_and_the_sockets() {
    let cluster = Cluster::start(1).await;
    let (client, users) = users(&cluster).await;
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let read = client.call(Request::Status, CallOptions::default());
    let clone = client.clone();
    client.close();
    tokio::time::timeout(PATIENCE, clone.closed()).await.unwrap();
    assert!(matches!(read.await.result, Err(Error::Closed(_))));
    let after = users.get(key(1), &OperationOptions::default()).await.unwrap_err();
    assert!(matches!(after, Error::Closed(_)));
}

#[tokio::test]
async fn what_is_in_flight_when_the_last_handle_goes_is_still_answered() {
    let cluster = Cluster::start(1).await;
    let (client, users) = users(&cluster).await;
    drop(users);
    let call = client.call(Request::Status, CallOptions::default());
    drop(client);
    assert!(call.await.result.is_ok());
}

#[tokio::test]
async fn endpoints_that_cannot_be_reached_are_named() {
    let malformed = Client::connect(vec!["localhost".to_owned()], PATIENCE)
        .await
        .err()
        .unwrap();
    assert_eq!(
        malformed,
        Error::invalid("endpoint \"localhost\": write host:port, for example 127.0.0.1:7400")
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let refused = Client::connect(vec![address.clone()], PATIENCE)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, Error::ConnectionLost(text) if text.contains(&address) && text.contains("check that nodes run there")),
        "{refused}"
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let late = Client::connect(vec![address.clone()], Duration::from_millis(200))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&late, Error::ConnectionLost(text) if text.contains(&address) && text.contains("200 ms")),
        "{late}"
    );
}

#[tokio::test]
async fn another_cluster_refuses() {
    let cluster = Cluster::start(1).await;
    let options = ConnectOptions {
        cluster: Some(ClusterId(6)),
        ..ConnectOptions::default()
    };
    let refused = Client::connect_with(cluster.endpoints(), options)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, Error::Refused(text) if text.contains("this is cluster 5") && text.contains(&cluster.endpoints()[0])),
        "{refused}"
    );
}

#[tokio::test]
async fn nodes_tell_about_themselves() {
    let mut cluster = Cluster::start(3).await;
    let (client, _users) = users(&cluster).await;
    assert_eq!(client.topology().await.unwrap(), cluster.topology);
    assert_eq!(client.status(NodeId(3)).await.unwrap().node, NodeId(3));
    assert_eq!(client.metrics(NodeId(2)).await.unwrap(), "node n2\n");
    assert!(matches!(client.status(NodeId(9)).await, Err(Error::NotFound(_))));

    let mut cursor = EventCursor::default();
    let first = client.events(&mut cursor).await.unwrap();
    let order: Vec<(u64, u16)> = first.iter().map(|event| (event.sequence, event.node.0)).collect();
    assert_eq!(order, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
    assert!(client.events(&mut cursor).await.unwrap().is_empty());
    cluster.kill(NodeId(1)).await;
    let without = client.events(&mut EventCursor::default()).await.unwrap();
    assert_eq!(without.len(), 4);
}

#[tokio::test]
async fn a_trace_joins_the_spans_of_client_and_nodes() {
    let cluster = Cluster::start(3).await;
    let sunk = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let options = ConnectOptions {
        span_sink: Some({
            let sunk = sunk.clone();
            std::sync::Arc::new(move |_| {
                sunk.fetch_add(1, Ordering::Relaxed);
            })
        }),
        ..ConnectOptions::default()
    };
    let client = Client::connect_with(cluster.endpoints(), options).await.unwrap();
    let users = client
        .create_keyspace(KeyspaceSettings::quorum("users", 3))
        .await
        .unwrap();
    let options = OperationOptions {
        call: CallOptions {
            trace: Trace::New,
            ..CallOptions::default()
        },
        ..OperationOptions::default()
    };
    let written = users.put(key(1), "v", &options).await.unwrap();
    let trace_id = written.trace_id.unwrap();
    let own = client.spans(trace_id);
    assert_eq!((own.len(), own[0].name.as_str()), (1, "put users"));
    assert_eq!(sunk.load(Ordering::Relaxed), 1);
    let mut there = own[0].clone();
    there.name = "quorum.write".to_owned();
    there.node = written.node;
    there.start.0 += 1;
    cluster.shared.spans.lock().unwrap().push(there);
    let whole = client.trace(trace_id).await.unwrap();
    let names: Vec<&str> = whole.iter().map(|span| span.name.as_str()).collect();
    // The fake nodes share their spans, so each returns the same one.
    assert_eq!(
        names,
        ["put users", "quorum.write", "quorum.write", "quorum.write"]
    );
}
