use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_core::time::WallTime;

use super::*;

pub(super) fn replica(node: u16) -> ReplicaId {
    ReplicaId::new(NodeId(node), 0xabcd)
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn timestamp(wall: u64) -> Timestamp {
    Timestamp {
        wall: WallTime(wall),
        logical: 0,
    }
}

fn dot(node: u16, counter: u64) -> Dot {
    Dot {
        replica: replica(node),
        counter,
    }
}

fn put(state: &KeyState, dot: Dot, value: &str, context: Option<&VersionVector>) -> KeyState {
    let write_id = WriteId {
        client: 7,
        sequence: dot.counter,
    };
    state
        .put(dot, Some(bytes(value)), timestamp(dot.counter), write_id, context)
        .unwrap()
}

fn values(state: &KeyState) -> Vec<String> {
    state
        .values()
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}

#[test]
fn sequential_plain_puts_through_one_replica_leave_one_value() {
    let state = put(&KeyState::default(), dot(1, 1), "a", None);
    let state = put(&state, dot(1, 4), "b", None);
    assert_eq!(values(&state), ["b"]);
    assert_eq!(state.clock().to_string(), "n1: 4");
}

#[test]
fn concurrent_puts_through_two_replicas_survive_until_a_put_that_saw_both() {
    let base = put(&KeyState::default(), dot(1, 1), "base", None);
    let left = put(&base, dot(1, 2), "left", None);
    let right = put(&base, dot(2, 1), "right", None);
    let merged = left.merge(&right);
    assert_eq!(values(&merged), ["left", "right"]);
    let resolved = put(&merged, dot(3, 1), "both", Some(merged.clock()));
    assert_eq!(values(&resolved), ["both"]);
    assert_eq!(resolved.merge(&left).merge(&right), resolved);
}

#[test]
fn a_retried_write_that_two_replicas_accepted_is_returned_once() {
    let write_id = WriteId {
        client: 7,
        sequence: 1,
    };
    let empty = KeyState::default();
    let first = empty
        .put(dot(1, 1), Some(bytes("x")), timestamp(1), write_id, None)
        .unwrap();
    let retry = empty
        .put(dot(2, 1), Some(bytes("x")), timestamp(2), write_id, None)
        .unwrap();
    let merged = first.merge(&retry);
    assert_eq!(merged.siblings().len(), 2);
    assert_eq!(values(&merged), ["x"]);
    assert_eq!(merged.find_write(write_id).unwrap().dot, dot(1, 1));
    assert_eq!(
        put(&merged, dot(1, 2), "y", Some(merged.clock()))
            .siblings()
            .len(),
        1
    );
}

#[test]
fn the_latest_is_decided_by_time_then_replica() {
    let write_id = WriteId {
        client: 7,
        sequence: 1,
    };
    let at = |dot, value: Option<&str>, time| {
        KeyState::default()
            .put(dot, value.map(bytes), timestamp(time), write_id, None)
            .unwrap()
    };
    let merged = at(dot(1, 9), Some("a"), 5).merge(&at(dot(2, 1), Some("b"), 5));
    assert_eq!(merged.latest().unwrap().dot, dot(2, 1));
    let merged = merged.merge(&at(dot(3, 1), None, 6));
    assert!(merged.latest().unwrap().is_tombstone());
    assert!(!merged.is_deleted(), "values coexist with the tombstone");
    assert_eq!(KeyState::default().latest(), None);
}

#[test]
fn a_key_is_deleted_when_only_tombstones_are_left() {
    let state = put(&KeyState::default(), dot(1, 1), "a", None);
    let write_id = WriteId {
        client: 7,
        sequence: 2,
    };
    let deleted = state.put(dot(1, 2), None, timestamp(2), write_id, None).unwrap();
    assert!(deleted.is_deleted() && deleted.live().next().is_none() && !deleted.is_empty());
    assert!(!state.is_deleted());
    assert!(KeyState::default().is_empty() && !KeyState::default().is_deleted());
}

#[test]
fn a_context_from_elsewhere_is_an_error_that_says_so() {
    let foreign: VersionVector = [dot(1, 50)].into_iter().collect();
    let error = KeyState::default()
        .put(
            dot(1, 3),
            None,
            timestamp(1),
            WriteId {
                client: 7,
                sequence: 1,
            },
            Some(&foreign),
        )
        .unwrap_err();
    assert_eq!((error.dot, error.seen), (dot(1, 3), 50));
    assert!(error.to_string().contains("up to 50"), "{error}");
    assert!(matches!(Error::from(error), Error::InvalidArgument(_)));
}

#[test]
fn vectors_are_readable_and_name_the_directory_only_where_needed() {
    let mut vector: VersionVector = [dot(2, 3), dot(1, 5), dot(10, 1)].into_iter().collect();
    assert_eq!(vector.to_string(), "n1: 5, n10: 1, n2: 3");
    vector.record(Dot {
        replica: ReplicaId::new(NodeId(2), 0xef),
        counter: 1,
    });
    let names: Vec<String> = vector.readable().into_keys().collect();
    assert_eq!(names, ["n1", "n10", "n2#0000000000ef", "n2#00000000abcd"]);
    assert_eq!(vector.get(replica(9)), 0);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes on disks and in messages. A change needs a new format number and a decoder of the old one.
#[test]
fn golden_bytes() {
    let left = put(&KeyState::default(), dot(1, 1), "a", None);
    let write_id = WriteId {
        client: 1,
        sequence: 300,
    };
    let right = Timestamp {
        wall: WallTime(1_700_000_000_000_000),
        logical: 2,
    };
    let right = KeyState::default()
        .put(dot(2, 200), None, right, write_id, None)
        .unwrap();
    let state = left.merge(&right);
    let clock = concat!(
        "02",                   // two replicas
        "cdd7828080804001",     // n1: 1
        "cdd7828080808001c801", // n2: 200
    );
    let siblings = concat!(
        "02",                   // two siblings
        "cdd7828080804001",     // dot n1:1
        "010161",               // value a
        "0100",                 // wall 1, logical 0
        "0701",                 // client 7, sequence 1
        "cdd7828080808001c801", // dot n2:200
        "00",                   // tombstone
        "8080f9c0c1c4820302",   // wall, logical 2
        "01ac02",               // client 1, sequence 300
    );
    let golden = format!("01{clock}{siblings}");
    assert_eq!(hexadecimal(&state.encode()), golden);
    assert_eq!(KeyState::decode(&state.encode()).unwrap(), state);
    assert_eq!(hexadecimal(&KeyState::default().encode()), "010000");
    assert_eq!(state.digest(), 11_968_226_461_769_020_424);
}

#[test]
fn bytes_that_are_not_a_state_are_rejected_with_a_reason() {
    let refused = |bytes: &[u8]| KeyState::decode(bytes).unwrap_err();
    assert_eq!(refused(b""), DecodeError::Empty { what: "key state" });
    assert!(refused(&[2, 0, 0]).to_string().contains("format 2"));
    assert!(refused(&[0, 0, 0]).to_string().contains("format 0"));
    assert!(refused(&[1, 0, 0, 9]).to_string().contains("1 bytes follow"));
    assert!(matches!(refused(&[1, 5]), DecodeError::Malformed { size: 2, .. }));
    // A vector with a counter of 0, and a state whose clock does not cover its sibling.
    refused(&[1, 1, 7, 0, 0]);
    let state = put(&KeyState::default(), dot(1, 1), "a", None);
    let uncovered = postcard::to_stdvec(&(VersionVector::new(), state.siblings())).unwrap();
    refused(&[&[1], &uncovered[..]].concat());
    let twice = postcard::to_stdvec(&(
        state.clock(),
        [&state.siblings()[0], &state.siblings()[0]].as_slice(),
    ))
    .unwrap();
    refused(&[&[1], &twice[..]].concat());
}
