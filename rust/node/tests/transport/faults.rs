//! Fault injection: each direction is controlled by its sender.

use std::time::Duration;

use quorate_core::ids::NodeId;
use quorate_node::transport::{Fault, FaultRules, TransportConfig};

use crate::support::{cluster, eventually, stop};

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_direction_takes_the_link_down_and_healing_brings_it_back() {
    let nodes = cluster(3, &TransportConfig::default()).await;
    for blocking in [0, 1] {
        let other = 1 - blocking;
        nodes[blocking]
            .transport
            .set_faults(&FaultRules::default().block(nodes[other].id));
        eventually("both see that the link is down", || {
            !nodes[0].sees(NodeId(2)) && !nodes[1].sees(NodeId(1))
        })
        .await;
        assert!(
            nodes[2].sees(NodeId(1)) && nodes[2].sees(NodeId(2)),
            "other links are not affected"
        );
        nodes[blocking].transport.set_faults(&FaultRules::default());
        eventually("the link is up again", || {
            nodes[0].sees(NodeId(2)) && nodes[1].sees(NodeId(1))
        })
        .await;
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_drops_some_messages_and_delivers_the_others() {
    let nodes = cluster(2, &TransportConfig::default()).await;
    let lossy = Fault {
        loss_percent: 50.0,
        ..Fault::default()
    };
    nodes[0]
        .transport
        .set_faults(&FaultRules::default().with(NodeId(2), lossy));
    for request in 0..2000 {
        nodes[0]
            .transport
            .send(NodeId(2), vec![nodes[0].envelope(request, 10)]);
    }
    nodes[0].transport.set_faults(&FaultRules::default());
    eventually("about half", || nodes[1].memory.received() > 700).await;
    let before = nodes[1].memory.received();
    assert!(before < 1300, "{before} of 2000");
    assert!(nodes[0].sees(NodeId(2)), "heartbeats are not dropped");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_does_not_reduce_throughput() {
    let nodes = cluster(2, &TransportConfig::default()).await;
    let slow = Fault {
        delay: Duration::from_millis(60),
        jitter: Duration::from_millis(20),
        ..Fault::default()
    };
    nodes[0]
        .transport
        .set_faults(&FaultRules::default().with(NodeId(2), slow));
    eventually("a longer round trip", || {
        nodes[0].transport.status()[0].round_trip_micros >= 60_000
    })
    .await;
    let begun = tokio::time::Instant::now();
    let envelopes = (0..20)
        .map(|request| nodes[0].envelope(request, 100 << 10))
        .collect();
    nodes[0].transport.send(NodeId(2), envelopes);
    eventually("2 MiB", || nodes[1].memory.received() == 20).await;
    // Eight chunks are in flight at a time, so this takes a few round trips, not one per batch.
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    nodes[0].transport.set_faults(&FaultRules::default());
    eventually("a short round trip", || {
        nodes[0].transport.status()[0].round_trip_micros < 60_000
    })
    .await;
    stop(nodes).await;
}
