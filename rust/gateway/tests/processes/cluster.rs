//! Clusters of three processes, over real sockets.

use quorate_core::ids::NodeId;
use quorate_core::level::Level;
use quorate_protocol::api::Response;
use quorate_protocol::telemetry::{Span, TraceContext};

use crate::client::{get, put};
use crate::process::Cluster;
use crate::until;

#[test]
fn a_put_at_one_node_is_read_at_another_and_survives_a_restart() {
    let mut cluster = Cluster::start(3);
    let keyspace = cluster.nodes[1].client().create("users", 3);
    let answer = cluster.nodes[0]
        .client()
        .ask(put(keyspace.id, "user-1", "Ada", Level::Quorum, 1));
    let Ok(Response::Written(written)) = answer else {
        panic!("{answer:?}")
    };
    assert!(written.acked.len() >= 2, "{written:?}");
    assert_eq!(
        cluster.nodes[2]
            .client()
            .values(keyspace.id, "user-1", Level::All),
        ["Ada"]
    );
    for index in 0..3 {
        cluster.restart(index);
    }
    cluster.await_links();
    assert_eq!(
        cluster.nodes[1]
            .client()
            .values(keyspace.id, "user-1", Level::All),
        ["Ada"]
    );
}

/// The spans of a trace, once there are `count` of them.
fn spans(cluster: &Cluster, trace_id: u128, count: usize) -> Vec<Span> {
    until(&format!("{count} spans"), || {
        let spans: Vec<Span> = cluster
            .nodes
            .iter()
            .flat_map(|node| node.client().spans(trace_id))
            .collect();
        (spans.len() >= count).then_some(spans)
    })
}

/// The path of a span: `name@node` from the coordinator down to it.
fn path(spans: &[Span], span: &Span) -> String {
    let own = format!("{}@{}", span.name, span.node.unwrap_or(NodeId(0)));
    match spans.iter().find(|other| other.span_id == span.parent_id) {
        Some(parent) => format!("{} {own}", path(spans, parent)),
        None => {
            assert_eq!(span.parent_id, 1, "{own} has no parent");
            own
        }
    }
}

#[test]
fn a_trace_spans_the_coordinator_and_the_disk_of_every_replica() {
    let cluster = Cluster::start(3);
    let mut client = cluster.nodes[0].client();
    let keyspace = client.create("traced", 3).id;
    let trace = |trace_id| TraceContext {
        trace_id,
        span_id: 1,
        sampled: true,
    };
    client.trace = Some(trace(7));
    client.ask(put(keyspace, "key", "value", Level::All, 1)).unwrap();
    client.trace = Some(trace(8));
    client.ask(get(keyspace, "key", Level::All)).unwrap();
    client.trace = None;
    client
        .ask(put(keyspace, "key", "untraced", Level::All, 2))
        .unwrap();

    for (trace_id, operation, peer, replica, disk) in [
        (7, "quorum.put", "peer.store", "replica.store", "storage.commit"),
        (8, "quorum.get", "peer.fetch", "replica.fetch", "storage.read"),
    ] {
        let found = spans(&cluster, trace_id, 8);
        let mut paths: Vec<String> = found.iter().map(|span| path(&found, span)).collect();
        paths.sort();
        let mut wanted = vec![format!("{operation}@n1"), format!("{operation}@n1 {disk}@n1")];
        for other in ["n2", "n3"] {
            let asked = format!("{operation}@n1 {peer}@n1 {replica}@{other}");
            wanted.push(format!("{asked} {disk}@{other}"));
            wanted.push(asked);
        }
        wanted.extend([
            format!("{operation}@n1 {peer}@n1"),
            format!("{operation}@n1 {peer}@n1"),
        ]);
        wanted.sort();
        assert_eq!(paths, wanted);
    }
}
