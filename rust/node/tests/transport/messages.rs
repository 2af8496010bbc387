//! Messages, large and small, between nodes of one process.

use std::sync::atomic::Ordering;

use quorate_core::ids::NodeId;
use quorate_node::transport::TransportConfig;
use quorate_protocol::message::Message;

use crate::support::{cluster, eventually, stop};

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_intact_in_both_directions() {
    let nodes = cluster(3, &TransportConfig::default()).await;
    for node in &nodes {
        node.memory.keep.store(true, Ordering::Relaxed);
    }
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            let envelopes = (0..100).map(|request| from.envelope(request, 100)).collect();
            from.transport.send(to.id, envelopes);
        }
    }
    for node in &nodes {
        eventually("200 messages", || node.memory.received() == 200).await;
        let recorded = node.memory.recorded.lock().unwrap();
        for message in &recorded.messages {
            let Message::FetchRange { start, .. } = &message.message else {
                panic!("{message:?}")
            };
            assert_eq!(start[..], vec![message.header.request as u8; 100]);
            assert_ne!(message.from.node, node.id);
        }
    }
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_arrive_and_the_round_trip_is_measured() {
    let nodes = cluster(2, &TransportConfig::default()).await;
    let envelopes = (0..20)
        .map(|request| nodes[0].envelope(request, 1 << 20))
        .collect();
    nodes[0].transport.send(NodeId(2), envelopes);
    eventually("20 MiB", || nodes[1].memory.received() == 20).await;
    eventually("a round trip", || {
        nodes[0].transport.status()[0].round_trip_micros > 0
    })
    .await;
    stop(nodes).await;
}
