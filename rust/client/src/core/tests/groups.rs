//! Routing of requests to Raft groups.

use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::{ReadLevel, Request};

use super::harness::*;
use super::sessions::in_session;

#[test]
fn requests_go_to_the_preferred_member_and_then_to_whoever_leads() {
    let mut cluster = Harness::ready(5);
    for leader in [3, 2, 3] {
        cluster.submit(read(ReadLevel::Linearizable));
        let arrived = cluster.take();
        cluster.reply(&arrived, Ok(records(leader, leader, Some(0))));
        cluster.submit(read(ReadLevel::Linearizable));
        assert_eq!(cluster.take().node, NodeId(leader));
    }
    let mut cluster = Harness::ready(5);
    cluster.submit(read(ReadLevel::Linearizable));
    assert_eq!(cluster.take().node, NodeId(1), "the ring prefers it");
}

#[test]
fn a_stale_read_goes_to_one_member_and_teaches_a_leader_only_if_none_is_known() {
    let mut cluster = Harness::ready(5);
    cluster.submit(read(ReadLevel::Stale));
    let first = cluster.take();
    assert!(first.node.0 <= 3, "a member");
    cluster.reply(&first, Ok(records(first.node.0, 2, Some(70_000))));
    cluster.submit(read(ReadLevel::Linearizable));
    let arrived = cluster.take();
    assert_eq!(arrived.node, NodeId(2));
    cluster.reply(&arrived, Ok(records(3, 3, Some(0))));
    cluster.submit(read(ReadLevel::Stale));
    let again = cluster.take();
    assert_eq!(again.node, first.node, "always the same one");
    cluster.reply(&again, Ok(records(again.node.0, 2, Some(70_000))));
    cluster.submit(read(ReadLevel::Linearizable));
    assert_eq!(cluster.take().node, NodeId(3));
}

#[test]
fn a_leader_whose_connection_breaks_is_not_taken_for_one() {
    let mut cluster = in_session(3);
    cluster.behaviour.insert(address(1), Behaviour::Refusing);
    cluster.cut(1, u64::MAX);
    cluster.submit(read(ReadLevel::Linearizable));
    assert_eq!(cluster.take().node, NodeId(2));
    cluster.behaviour.insert(address(1), Behaviour::Up);
    cluster.advance(Duration::from_secs(3));
    cluster.submit(read(ReadLevel::Linearizable));
    assert_eq!(
        cluster.take().node,
        NodeId(1),
        "it may lead again: the ring prefers it"
    );
}

#[test]
fn any_node_serves_when_no_member_is_reached() {
    let mut cluster = Harness::ready(5);
    for node in 1..=3 {
        cluster.behaviour.insert(address(node), Behaviour::Refusing);
        cluster.cut(node, u64::MAX);
    }
    cluster.submit(read(ReadLevel::Linearizable));
    assert!(cluster.take().node.0 > 3);
}

#[test]
fn every_member_is_asked_before_a_group_counts_as_unavailable() {
    let mut cluster = Harness::ready(3);
    let unavailable = Error::unavailable(2, 1);
    let op = cluster.submit(read(ReadLevel::Linearizable));
    for node in 1..=3 {
        let arrived = cluster.take();
        assert_eq!(arrived.node, NodeId(node));
        cluster.reply(&arrived, Err(unavailable.clone()));
    }
    assert_eq!(cluster.error(op), &unavailable);
}

#[test]
fn a_silent_leader_does_not_eat_the_deadline() {
    let mut cluster = in_session(3);
    cluster.behaviour.insert(address(1), Behaviour::Silent);
    let write = cluster.submit(propose("a"));
    let linearizable = cluster.submit(read(ReadLevel::Linearizable));
    assert!(cluster.arrived.is_empty());
    cluster.advance(Duration::from_millis(650));
    let moved: Vec<Arrived> = std::mem::take(&mut cluster.arrived);
    assert_eq!(moved.len(), 2);
    for arrived in moved {
        assert_eq!(arrived.node, NodeId(2));
        let answer = match arrived.frame.request {
            Request::Propose { .. } => committed(9, 2),
            _ => records(2, 2, Some(0)),
        };
        cluster.reply(&arrived, Ok(answer));
    }
    assert!(cluster.outcome(write).result.is_ok());
    assert!(cluster.outcome(linearizable).result.is_ok());
    cluster.submit(propose("b"));
    assert_eq!(
        cluster.take().node,
        NodeId(2),
        "nothing more goes to the silent one"
    );
}

#[test]
fn a_busy_leader_that_still_speaks_is_not_bothered_again() {
    let mut cluster = in_session(3);
    let slow = cluster.submit(propose("a"));
    let waiting = cluster.take();
    for _ in 0..4 {
        cluster.advance(Duration::from_millis(300));
        let op = cluster.submit(read(ReadLevel::Linearizable));
        let arrived = cluster.take();
        assert_eq!(arrived.node, NodeId(1));
        cluster.reply(&arrived, Ok(records(1, 1, Some(0))));
        assert!(cluster.outcome(op).result.is_ok());
    }
    assert!(cluster.arrived.is_empty());
    cluster.reply(&waiting, Ok(committed(9, 1)));
    assert_eq!(cluster.outcome(slow).attempts, 1);
}
