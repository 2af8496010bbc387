//! Which values may be absent, and which were lost.

use std::sync::Arc;

use quorate_core::hlc::Timestamp;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_core::time::Instant;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::Header;

use super::*;

const KEYSPACE: KeyspaceId = KeyspaceId(1);

fn key() -> Key {
    Key::try_from("k").expect("a short key")
}

/// A replica and the write model that observes it.
struct Bench {
    write_model: WriteModel,
    requests: u64,
}

impl Bench {
    fn new() -> Self {
        Bench {
            write_model: WriteModel::default(),
            requests: 0,
        }
    }

    /// Replica `node` assigns a dot to a put; returns the new state and the dot.
    fn put(
        &mut self,
        node: u16,
        counter: u64,
        before: &KeyState,
        context: Option<&VersionVector>,
    ) -> (KeyState, Dot) {
        self.requests += 1;
        let dot = Dot {
            replica: ReplicaId::new(NodeId(node), 1),
            counter,
        };
        let write_id = WriteId {
            client: 1,
            sequence: self.requests,
        };
        let value = Some(Bytes::from(format!("v{}", self.requests)));
        let after = before
            .put(dot, value.clone(), Timestamp::default(), write_id, context)
            .expect("a new dot");
        let me = Address {
            node: NodeId(node),
            role: RoleId::Replica(KEYSPACE),
        };
        let coordinator = RoleId::Coordinator(KEYSPACE);
        let header = Header {
            generation: 1,
            request: self.requests,
            deadline: Instant::NEVER,
            trace: None,
        };
        let message = LocalMessage::Assign {
            key: key(),
            value,
            context: context.cloned(),
            write_id,
        };
        let event = Event::Local {
            from: coordinator,
            header,
            message,
        };
        let message = LocalMessage::Assigned {
            dot,
            timestamp: Timestamp::default(),
            state: Arc::new(after.clone()),
        };
        let effects = [Effect::SendLocal {
            to: coordinator,
            header,
            message,
        }];
        self.write_model
            .observe(me, &event, &effects)
            .expect("a dot of its own");
        (after, dot)
    }

    fn lost(&self, state: &KeyState) -> Option<Dot> {
        self.write_model.lost(KEYSPACE, &key(), state)
    }
}

#[test]
fn a_write_that_a_later_one_had_seen_may_be_absent() {
    let mut bench = Bench::new();
    let (first, _) = bench.put(1, 1, &KeyState::default(), None);
    let (second, _) = bench.put(2, 1, &first, Some(first.clock()));
    let (third, _) = bench.put(1, 2, &second, None);
    for state in [&first, &second, &third] {
        assert_eq!(bench.lost(state), None);
    }
}

#[test]
fn siblings_must_not_be_absent() {
    let mut bench = Bench::new();
    let (first, one) = bench.put(1, 1, &KeyState::default(), None);
    let (both, two) = bench.put(1, 2, &first, Some(&VersionVector::new()));
    assert_eq!(bench.lost(&both), None);
    // The whole vector with only the new value: the first one was dropped.
    let write_id = WriteId {
        client: 0,
        sequence: 0,
    };
    let only = KeyState::default().put(two, None, Timestamp::default(), write_id, None);
    assert_eq!(bench.lost(&only.expect("a new dot")), Some(one));
}

#[test]
fn a_write_with_a_lower_counter_than_an_unrelated_one_is_lost() {
    let mut bench = Bench::new();
    let (first, _) = bench.put(1, 1, &KeyState::default(), None);
    // A crash loses the second write of n1, whose next one, with the first as its context, has a higher counter.
    let (second, two) = bench.put(1, 2, &first, None);
    let (third, _) = bench.put(1, 3, &first, Some(first.clock()));
    assert_eq!(bench.lost(&third), Some(two));
    assert_eq!(bench.lost(&second.merge(&third)), Some(two));
}

#[test]
fn a_lost_write_replaces_nothing() {
    let mut bench = Bench::new();
    let (first, one) = bench.put(1, 1, &KeyState::default(), None);
    // The second had seen the first; the third, with a higher counter, has seen neither.
    let (second, two) = bench.put(1, 2, &first, None);
    let (third, _) = bench.put(1, 3, &first, Some(&VersionVector::new()));
    assert_eq!(third.sibling(one).map(|sibling| sibling.dot), Some(one));
    assert_eq!(bench.lost(&third), Some(two));
    assert_eq!(bench.lost(&second.merge(&third)), Some(two));
}

#[test]
fn only_writes_without_an_intact_copy_are_forfeited() {
    let mut bench = Bench::new();
    let (first, one) = bench.put(1, 1, &KeyState::default(), None);
    let (_, two) = bench.put(1, 2, &first, Some(&VersionVector::new()));
    // Another replica has the first one only.
    bench.write_model.forfeit(KEYSPACE, &key(), first.clock());
    let forfeited = |dot| {
        bench
            .write_model
            .birth(KEYSPACE, dot)
            .map(|birth| birth.forfeited)
    };
    assert_eq!((forfeited(one), forfeited(two)), (Some(false), Some(true)));
}

#[test]
fn a_dot_is_assigned_to_one_write() {
    let mut bench = Bench::new();
    let (_, dot) = bench.put(1, 1, &KeyState::default(), None);
    let first = bench
        .write_model
        .birth(KEYSPACE, dot)
        .cloned()
        .expect("it was born");
    assert_eq!(
        bench.write_model.born(KEYSPACE, dot, first.clone()),
        Ok(()),
        "a retry"
    );
    let other = Birth { value: None, ..first };
    assert!(bench.write_model.born(KEYSPACE, dot, other).is_err());
}
