//! Outcomes of operations: retried only if that is safe, and truthfully definite or unknown.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::MAX_VALUE_BYTES;
use quorate_protocol::api::Request;
use quorate_protocol::telemetry::TraceContext;
use quorate_versions::WriteId;

use super::super::{CallOptions, ClientEvent, GRACE, MAX_IN_FLIGHT, Trace};
use super::harness::*;

fn write_id(request: &Request) -> WriteId {
    match request {
        Request::Put { write_id, .. } => *write_id,
        other => panic!("{other:?} is not a put"),
    }
}

const UNKNOWN: Error = Error::OutcomeUnknown {
    acked: 0,
    required: 2,
    reason: None,
};

/// Why a write's outcome is unknown before its deadline.
#[track_caller]
fn cause(error: &Error) -> &str {
    match error {
        Error::OutcomeUnknown {
            acked: 0,
            required: 2,
            reason: Some(cause),
        } => cause,
        error => panic!("{error:?}"),
    }
}

#[test]
fn write_ids_name_the_client_and_rise() {
    let mut cluster = Harness::ready(3);
    for sequence in 1..=3 {
        cluster.submit(put("a"));
        let arrived = cluster.take();
        assert_eq!(
            write_id(&arrived.frame.request),
            WriteId {
                client: 4242,
                sequence
            }
        );
    }
}

#[test]
fn a_write_whose_connection_breaks_is_unknown_at_once() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(put("a"));
    let arrived = cluster.take();
    cluster.cut(arrived.node.0, u64::MAX);
    assert_eq!(cause(cluster.error(op)), "connection reset");
    cluster.advance(Duration::from_secs(5));
    assert!(cluster.arrived.is_empty(), "it must not be sent again");
}

#[test]
fn a_write_that_never_left_is_sent_elsewhere_with_the_same_id() {
    let mut cluster = Harness::ready(3);
    let replicas = cluster.replicas("a");
    let op = cluster.submit(put("a"));
    let first = cluster.take();
    // One byte of it was not written.
    let sent = cluster.core.connections[&first.connection].sent;
    cluster.cut(first.node.0, sent - 1);
    let second = cluster.take();
    assert_eq!(second.node, replicas[1]);
    assert_eq!(write_id(&second.frame.request), write_id(&first.frame.request));
    cluster.reply(&second, Ok(written()));
    assert_eq!(cluster.outcome(op).attempts, 2);
    assert_eq!(cluster.outcome(op).node, Some(replicas[1]));
}

#[test]
fn a_read_whose_connection_breaks_is_asked_elsewhere() {
    let mut cluster = Harness::ready(3);
    let replicas = cluster.replicas("a");
    let op = cluster.submit(get("a"));
    for expected in &replicas[..2] {
        let arrived = cluster.take();
        assert_eq!(arrived.node, *expected);
        cluster.cut(arrived.node.0, u64::MAX);
    }
    let last = cluster.take();
    assert_eq!(last.node, replicas[2]);
    cluster.reply(&last, Ok(entry()));
    assert_eq!(cluster.outcome(op).result, Ok(entry()));
}

#[test]
fn an_overloaded_node_is_passed_over_after_a_pause() {
    let mut cluster = Harness::ready(3);
    let replicas = cluster.replicas("a");
    let op = cluster.submit(put("a"));
    let first = cluster.take();
    cluster.reply(&first, Err(Error::Overloaded("busy".to_owned())));
    assert!(cluster.arrived.is_empty(), "not at once");
    cluster.advance(Duration::from_millis(10));
    let second = cluster.take();
    assert_eq!(second.node, replicas[1]);
    assert_eq!(write_id(&second.frame.request), write_id(&first.frame.request));
    cluster.reply(&second, Ok(written()));
    assert!(cluster.outcome(op).result.is_ok());
}

#[test]
fn overload_everywhere_is_said_after_some_attempts() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(put("a"));
    let mut attempts = 0;
    while let Some(arrived) = cluster.arrived.pop() {
        attempts += 1;
        cluster.reply(&arrived, Err(Error::Overloaded("busy".to_owned())));
        cluster.advance(Duration::from_millis(400));
    }
    assert_eq!(attempts, 6);
    assert_eq!(cluster.error(op), &Error::Overloaded("busy".to_owned()));
}

#[test]
fn a_node_that_is_closing_is_passed_over_at_once() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(put("a"));
    let first = cluster.take();
    cluster.reply(&first, Err(Error::Closed("stopping".to_owned())));
    let second = cluster.take();
    assert_ne!(second.node, first.node);
    cluster.reply(&second, Ok(written()));
    assert!(cluster.outcome(op).result.is_ok());
}

#[test]
fn a_known_keyspace_that_a_node_does_not_know_yet_is_asked_for_elsewhere() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(get("a"));
    let first = cluster.take();
    cluster.reply(&first, Err(Error::NotFound("no keyspace k1".to_owned())));
    cluster.advance(Duration::from_millis(30));
    let second = cluster.take();
    assert_ne!(second.node, first.node);
    cluster.reply(&second, Ok(entry()));
    assert!(cluster.outcome(op).result.is_ok());

    let unknown = cluster.submit(Request::Get {
        keyspace: KeyspaceId(99),
        key: key("a"),
        level: None,
    });
    let arrived = cluster.take();
    cluster.reply(&arrived, Err(Error::NotFound("no keyspace k99".to_owned())));
    assert_eq!(
        cluster.error(unknown),
        &Error::NotFound("no keyspace k99".to_owned())
    );
}

#[test]
fn one_other_replica_is_asked_when_a_coordinator_reaches_too_few() {
    let unavailable = |alive| Error::unavailable(2, alive);
    let mut cluster = Harness::ready(5);
    let replicas = cluster.replicas("a");
    let op = cluster.submit(put("a"));
    let first = cluster.take();
    cluster.reply(&first, Err(unavailable(1)));
    let second = cluster.take();
    assert_eq!(second.node, replicas[1]);
    assert_eq!(write_id(&second.frame.request), write_id(&first.frame.request));
    cluster.reply(&second, Ok(written()));
    assert!(cluster.outcome(op).result.is_ok());

    let op = cluster.submit(get("a"));
    for alive in [1, 0] {
        let arrived = cluster.take();
        cluster.reply(&arrived, Err(unavailable(alive)));
    }
    assert_eq!(cluster.error(op), &unavailable(0), "two opinions are enough");

    for node in &replicas[1..] {
        cluster.behaviour.insert(address(node.0), Behaviour::Refusing);
        cluster.cut(node.0, u64::MAX);
    }
    let op = cluster.submit(put("a"));
    let only = cluster.take();
    cluster.reply(&only, Err(unavailable(1)));
    assert_eq!(
        cluster.error(op),
        &unavailable(1),
        "who has no replica does not know better"
    );
}

#[test]
fn other_errors_are_the_answer() {
    for error in [UNKNOWN, Error::StorageFull("full".to_owned())] {
        let mut cluster = Harness::ready(3);
        let op = cluster.submit(put("a"));
        let arrived = cluster.take();
        cluster.reply(&arrived, Err(error.clone()));
        assert_eq!(cluster.error(op), &error);
    }
}

#[test]
fn deadlines_end_what_nobody_answers_and_leave_the_node_the_last_word() {
    let mut cluster = Harness::ready(3);
    let (write, read, answered) = (
        cluster.submit(put("a")),
        cluster.submit(get("a")),
        cluster.submit(put("a")),
    );
    let last = cluster.take();
    assert_eq!(last.frame.deadline_ms, 2000);
    cluster.advance(Duration::from_secs(2));
    let precise = Error::OutcomeUnknown {
        acked: 1,
        required: 2,
        reason: None,
    };
    cluster.reply(&last, Err(precise.clone()));
    assert_eq!(cluster.error(answered), &precise);
    assert!(
        !cluster.completed.contains_key(&write),
        "the node still may answer"
    );
    cluster.advance(GRACE);
    assert_eq!(cluster.error(write), &UNKNOWN);
    assert_eq!(
        cluster.error(read),
        &Error::ReadTimeout {
            answered: 0,
            required: 2
        }
    );
    assert_eq!(cluster.core.in_flight(), 0);
}

#[test]
fn a_late_answer_is_dropped() {
    let mut cluster = Harness::ready(3);
    let op = cluster.submit(put("a"));
    let arrived = cluster.take();
    cluster.advance(Duration::from_secs(3));
    assert_eq!(cluster.error(op), &UNKNOWN);
    cluster.reply(&arrived, Ok(written()));
    assert_eq!(cluster.error(op), &UNKNOWN);
}

#[test]
fn a_retry_carries_what_is_left_of_the_deadline() {
    let mut cluster = Harness::ready(3);
    cluster.submit(get("a"));
    let first = cluster.take();
    cluster.advance(Duration::from_millis(400));
    cluster.cut(first.node.0, u64::MAX);
    assert_eq!(cluster.take().frame.deadline_ms, 1600);
}

#[test]
fn without_any_node_an_operation_fails_after_one_round_of_attempts() {
    let mut cluster = Harness::ready(3);
    for node in 1..=3 {
        cluster.behaviour.insert(address(node), Behaviour::Refusing);
    }
    for node in 1..=3 {
        cluster.cut(node, u64::MAX);
    }
    let op = cluster.submit(put("a"));
    cluster.advance(Duration::from_millis(300));
    let Error::ConnectionLost(text) = cluster.error(op) else {
        panic!("{:?}", cluster.error(op));
    };
    assert!(text.contains("n1:7400 (connection refused), n2:7400"), "{text}");
    assert_eq!(cluster.outcome(op).attempts, 0);
}

#[test]
fn an_operation_waits_for_a_node_that_comes_back_in_time() {
    let mut cluster = Harness::ready(1);
    cluster.cut(1, u64::MAX);
    let op = cluster.submit(put("a"));
    cluster.advance(Duration::from_millis(100));
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(written()));
    assert!(cluster.outcome(op).result.is_ok());
}

#[test]
fn operations_in_flight_are_bounded_in_number_and_bytes() {
    let mut cluster = Harness::ready(1);
    cluster.checking = false;
    for _ in 0..MAX_IN_FLIGHT {
        cluster.submit(get("a"));
    }
    let refused = cluster.submit(get("a"));
    assert!(matches!(cluster.error(refused), Error::Overloaded(_)));
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(entry()));
    let admitted = cluster.submit(get("a"));
    assert!(!cluster.completed.contains_key(&admitted));
    cluster.core.check();

    let mut cluster = Harness::ready(1);
    let megabyte = || match put("a") {
        Request::Put { keyspace, key, .. } => Request::Put {
            keyspace,
            key,
            value: Some(Bytes::from(vec![7; MAX_VALUE_BYTES])),
            context: None,
            level: None,
            write_id: WriteId {
                client: 0,
                sequence: 0,
            },
        },
        _ => unreachable!("a put is a put"),
    };
    let mut count = 0;
    loop {
        let op = cluster.submit(megabyte());
        cluster.arrived.clear();
        if cluster.completed.contains_key(&op) {
            assert!(matches!(cluster.error(op), Error::Overloaded(_)));
            break;
        }
        count += 1;
        assert!(count <= 256);
    }
}

#[test]
fn an_oversized_value_is_not_even_sent() {
    let mut cluster = Harness::ready(1);
    let Request::Put { keyspace, key, .. } = put("a") else {
        unreachable!("a put is a put");
    };
    let op = cluster.submit(Request::Put {
        keyspace,
        key,
        value: Some(Bytes::from(vec![0; MAX_VALUE_BYTES + 1])),
        context: None,
        level: None,
        write_id: WriteId {
            client: 0,
            sequence: 0,
        },
    });
    assert!(cluster.arrived.is_empty());
    let Error::LimitExceeded { size, limit, .. } = cluster.error(op) else {
        panic!("{:?}", cluster.error(op));
    };
    assert_eq!(
        (*size, *limit),
        (MAX_VALUE_BYTES as u64 + 1, MAX_VALUE_BYTES as u64)
    );
}

#[test]
fn a_sampled_operation_has_a_span_and_carries_its_context() {
    let mut cluster = Harness::ready(3);
    let options = CallOptions {
        trace: Trace::New,
        ..CallOptions::default()
    };
    let op = cluster.submit_with(put("a"), options);
    let arrived = cluster.take();
    let context = arrived.frame.trace.unwrap();
    cluster.advance(Duration::from_millis(3));
    cluster.reply(&arrived, Ok(written()));
    let span = cluster.spans.pop().unwrap();
    assert_eq!(cluster.outcome(op).trace_id, Some(span.trace_id));
    assert_eq!(
        (span.trace_id, span.span_id, span.parent_id),
        (context.trace_id, context.span_id, 0)
    );
    assert_eq!(
        (span.name.as_str(), span.end.0 - span.start.0, span.node),
        ("put users", 3000, None)
    );
    let attribute = |name: &str, value: &str| span.attributes.contains(&(name.to_owned(), value.to_owned()));
    assert!(attribute("db.collection.name", "users") && attribute("db.operation.name", "put"));

    let parent = TraceContext {
        trace_id: 5,
        span_id: 6,
        sampled: true,
    };
    let options = CallOptions {
        trace: Trace::Child(parent),
        ..CallOptions::default()
    };
    cluster.submit_with(get("a"), options);
    let arrived = cluster.take();
    cluster.reply(&arrived, Err(Error::StorageFull("full".to_owned())));
    let span = cluster.spans.pop().unwrap();
    assert_eq!((span.trace_id, span.parent_id), (5, 6));
    assert_eq!(span.error.as_deref(), Some("StorageFull"));

    cluster.submit(get("a"));
    let arrived = cluster.take();
    assert_eq!(arrived.frame.trace, None);
    cluster.reply(&arrived, Ok(entry()));
    assert!(cluster.spans.is_empty());
}

#[test]
fn closing_ends_everything_truthfully() {
    let mut cluster = Harness::ready(3);
    let (write, read) = (cluster.submit(put("a")), cluster.submit(get("a")));
    cluster.event(ClientEvent::Close);
    assert_eq!(cause(cluster.error(write)), "the client was closed");
    assert!(matches!(cluster.error(read), Error::Closed(_)));
    assert!(cluster.open.is_empty());
    let after = cluster.submit(get("a"));
    assert!(matches!(cluster.error(after), Error::Closed(_)));
}
