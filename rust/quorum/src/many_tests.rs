use bytes::Bytes;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::Version;
use quorate_protocol::telemetry::Operation;
use quorate_versions::{Context, Dot};

use super::*;

fn details(operation: Operation) -> RequestDetails {
    RequestDetails::own(operation, (Level::Two, 2), Instant(9), Now::default())
}

fn dot() -> Dot {
    Dot {
        replica: ReplicaId::new(NodeId(1), 1),
        counter: 1,
    }
}

fn context() -> Context {
    let key = Key::try_from("k").expect("a key");
    Context::new(KeyspaceId(1), &key, [dot()].into_iter().collect())
}

/// An entry with a value of this many bytes.
fn entry(size: usize) -> Response {
    Response::Entry(Entry {
        versions: vec![Version {
            dot: dot(),
            value: Bytes::from(vec![0; size]),
            timestamp: Timestamp::default(),
        }],
        context: context(),
        answered: vec![NodeId(1)],
        coordinator: NodeId(1),
        level: Level::Two,
    })
}

fn written() -> Response {
    Response::Written(Written {
        dot: dot(),
        context: context(),
        timestamp: Timestamp::default(),
        acked: vec![NodeId(1)],
        coordinator: NodeId(1),
        level: Level::Two,
    })
}

fn sizes(answer: Result<Response, Error>) -> Vec<Option<usize>> {
    let Ok(Response::Entries(all)) = answer else {
        panic!("{answer:?}");
    };
    let size = |result: Result<Entry, Error>| match result {
        Ok(entry) => Some(entry.versions[0].value.len()),
        Err(Error::LimitExceeded { .. }) => None,
        Err(other) => panic!("{other}"),
    };
    all.into_iter().map(size).collect()
}

#[test]
fn results_are_in_the_order_of_the_keys() {
    let mut many = Many::gets(details(Operation::GetMany), 3);
    for place in [2, 0, 1] {
        assert!(!many.is_complete());
        many.take(place, Ok(entry(place)));
    }
    assert!(many.is_complete());
    assert_eq!(sizes(many.finish().1), [Some(0), Some(1), Some(2)]);
}

/// Entries are returned up to the limit, whatever the sizes of the values; a single larger entry is returned too.
#[test]
fn a_response_is_bounded() {
    let mut many = Many::gets(details(Operation::GetMany), 4);
    many.take(0, Ok(entry(MAX_MANY_BYTES / 2)));
    many.take(1, Ok(entry(MAX_MANY_BYTES)));
    many.take(2, Ok(entry(MAX_MANY_BYTES / 4)));
    many.take(3, Ok(entry(MAX_MANY_BYTES / 4)));
    let expected = [Some(MAX_MANY_BYTES / 2), None, Some(MAX_MANY_BYTES / 4), None];
    assert_eq!(sizes(many.finish().1), expected);
    let mut many = Many::gets(details(Operation::GetMany), 2);
    many.take(1, Ok(entry(2 * MAX_MANY_BYTES)));
    many.take(0, Ok(entry(1)));
    assert_eq!(sizes(many.finish().1), [None, Some(2 * MAX_MANY_BYTES)]);
}

#[test]
fn an_error_that_all_keys_share_is_the_response() {
    let unavailable = || Err(Error::unavailable(2, 1));
    let mut many = Many::puts(details(Operation::PutMany), 2);
    many.take(0, unavailable());
    many.take(1, unavailable());
    assert_eq!(many.finish().1, Err(Error::unavailable(2, 1)));
    let others = [Ok(written()), Err(Error::unavailable(2, 0))];
    for other in others {
        let mut many = Many::puts(details(Operation::PutMany), 2);
        many.take(0, unavailable());
        many.take(1, other.clone());
        let Ok(Response::WrittenMany(all)) = many.finish().1 else {
            panic!("each key has its own");
        };
        assert_eq!(all[0], Err(Error::unavailable(2, 1)));
        assert_eq!(all[1].is_ok(), other.is_ok());
    }
}

/// The response to a forwarded put comes from another node: it may be anything.
#[test]
fn an_unexpected_response_to_a_put_leaves_its_outcome_unknown() {
    let mut many = Many::puts(details(Operation::PutMany), 2);
    many.take(0, Ok(Response::Done));
    many.take(1, Ok(written()));
    let Ok(Response::WrittenMany(all)) = many.finish().1 else {
        panic!("each key has its own");
    };
    assert!(matches!(all[0], Err(Error::OutcomeUnknown { .. })) && all[1].is_ok());
}
