use quorate_raft::types::GroupId;

use super::*;
use crate::api::ReadLevel;
use crate::api::request_samples::{encoded_len, every_kind};

fn frame(id: u64, request: Request) -> RequestFrame {
    RequestFrame {
        id,
        deadline_ms: 1_000,
        trace: None,
        request,
    }
}

fn get() -> Request {
    Request::Get {
        keyspace: KeyspaceId(1),
        key: "k".try_into().expect("a key"),
        level: None,
    }
}

struct Node {
    limits: Limits,
    totals: Totals,
    connections: Vec<InFlight>,
}

impl Node {
    fn new(limits: Limits, connections: usize) -> Self {
        Node {
            limits,
            totals: Totals::default(),
            connections: vec![InFlight::default(); connections],
        }
    }

    fn admit(&mut self, connection: usize, frame: &RequestFrame) -> Result<(), Rejection> {
        let size = encoded_len(frame);
        let in_flight = &mut self.connections[connection];
        in_flight.admit(frame, size, Instant(0), &self.limits, &mut self.totals, |_| 2)
    }
}

fn overloaded(rejection: Result<(), Rejection>, with: &str) -> bool {
    matches!(rejection, Err(Rejection::Error(Error::Overloaded(text))) if text.contains(with))
}

/// Admitted requests of any kind do not exceed the byte limits, on a connection and on all of them.
#[test]
fn every_kind_of_request_is_weighed() {
    let limits = Limits {
        request_bytes: 6 << 20,
        connection_bytes: 4 << 20,
        ..Limits::default()
    };
    for request in every_kind() {
        let mut node = Node::new(limits, 2);
        for connection in 0..2 {
            let mut on_the_wire = 0;
            for id in 0.. {
                let frame = frame(id, request.clone());
                match node.admit(connection, &frame) {
                    Ok(()) => on_the_wire += encoded_len(&frame),
                    rejected => {
                        assert!(overloaded(rejected, "in flight"), "{}", request.operation_name());
                        break;
                    }
                }
            }
            assert!(
                on_the_wire <= limits.connection_bytes,
                "{}",
                request.operation_name()
            );
        }
        assert!(
            node.totals.bytes <= limits.request_bytes,
            "{}",
            request.operation_name()
        );
        let sum: usize = node.connections.iter().map(InFlight::bytes).sum();
        assert_eq!(node.totals.bytes, sum);
    }
}

#[test]
fn answered_requests_free_capacity() {
    let limits = Limits {
        requests: 3,
        connection_requests: 2,
        ..Limits::default()
    };
    let mut node = Node::new(limits, 2);
    assert_eq!(node.admit(0, &frame(1, get())), Ok(()));
    assert_eq!(node.admit(0, &frame(1, get())), Err(Rejection::Duplicate));
    assert_eq!(node.admit(0, &frame(2, get())), Ok(()));
    assert!(overloaded(node.admit(0, &frame(3, get())), "on this connection"));
    assert_eq!(node.admit(1, &frame(1, get())), Ok(()));
    assert!(overloaded(node.admit(1, &frame(2, get())), "on this node"));
    assert_eq!(node.totals.rejected, 2);
    assert!(node.connections[0].release(2, &mut node.totals).is_some());
    assert_eq!(node.connections[0].release(2, &mut node.totals), None, "once");
    assert_eq!(node.admit(1, &frame(2, get())), Ok(()));
    for connection in &mut node.connections {
        connection.release_all(&mut node.totals);
        assert!(connection.is_empty());
    }
    assert_eq!((node.totals.requests, node.totals.bytes), (0, 0));
}

#[test]
fn a_request_after_its_deadline_gets_a_definite_error() {
    let mut node = Node::new(Limits::default(), 1);
    let late = |request| RequestFrame {
        deadline_ms: 0,
        ..frame(1, request)
    };
    let read = Rejection::Error(Error::ReadTimeout {
        answered: 0,
        required: 2,
    });
    assert_eq!(node.admit(0, &late(get())), Err(read));
    let change = Request::OpenSession {
        keyspace: KeyspaceId(1),
        group: GroupId(2),
        idle_ms: 1,
    };
    assert!(overloaded(node.admit(0, &late(change)), "nothing was executed"));
}

#[test]
fn overdue_requests_are_found_by_their_deadlines() {
    let mut node = Node::new(Limits::default(), 1);
    for (id, deadline_ms) in [(1, 10), (2, 1_000)] {
        let frame = RequestFrame {
            deadline_ms,
            ..frame(id, get())
        };
        assert_eq!(node.admit(0, &frame), Ok(()));
    }
    let overdue = |micros| node.connections[0].overdue(Instant(micros), &node.limits);
    assert_eq!(overdue(1_009_999), [0; 0]);
    assert_eq!(overdue(1_010_000), [1]);
    assert_eq!(overdue(2_000_000), [1, 2]);
}

#[test]
fn the_required_responses_depend_on_the_keyspace_or_the_control_plane() {
    let settings = KeyspaceSettings::quorum("users", 3);
    let need = Need::of(&get());
    assert_eq!(need.required(5, Some(&settings)), 2);
    assert_eq!(need.required(5, None), 1, "unknown keyspace");
    let drop = Request::DropKeyspace {
        name: "users".to_owned(),
        write_id: quorate_versions::WriteId::default(),
    };
    assert_eq!(Need::of(&drop).required(5, None), 3);
    let read = Request::Read {
        keyspace: KeyspaceId(1),
        group: GroupId(2),
        keys: Vec::new(),
        level: ReadLevel::Stale,
    };
    assert!(!Need::of(&read).writes);
}

/// A request for many keys costs as much work and memory as one for each.
#[test]
fn a_request_for_many_keys_counts_as_many() {
    let many = |keys: usize| Request::GetMany {
        keyspace: KeyspaceId(1),
        keys: vec!["k".try_into().expect("a key"); keys],
        level: None,
    };
    let limits = Limits {
        requests: 12,
        connection_requests: 10,
        ..Limits::default()
    };
    let mut node = Node::new(limits, 2);
    assert_eq!(node.admit(0, &frame(1, many(6))), Ok(()));
    assert!(overloaded(
        node.admit(0, &frame(2, many(5))),
        "6 requests are in flight on this connection"
    ));
    assert_eq!(node.admit(0, &frame(2, many(4))), Ok(()));
    assert!(overloaded(
        node.admit(1, &frame(1, many(3))),
        "10 requests are in flight on this node"
    ));
    assert_eq!(node.admit(1, &frame(1, many(2))), Ok(()));
    node.connections[0].release_all(&mut node.totals);
    assert_eq!(node.totals.requests, 2);
    node.connections[1].release_all(&mut node.totals);
    assert_eq!(node.admit(0, &frame(3, many(1_000))), Ok(()), "the only request");
    let too_many = node.admit(1, &frame(2, many(1_001)));
    assert!(
        matches!(
            too_many,
            Err(Rejection::Error(Error::LimitExceeded { size: 1_001, .. }))
        ),
        "{too_many:?}"
    );
}
