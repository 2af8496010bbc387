//! Which values may be gone, and which were lost.

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

/// A replica, what it holds, and the write model that watches it.
struct Lab {
    write_model: WriteModel,
    requests: u64,
}

impl Lab {
    fn new() -> Self {
        Lab {
            write_model: WriteModel::default(),
            requests: 0,
        }
    }

    /// Replica `node` makes a put an event of the state it holds; gives the state after it, and the dot.
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
fn what_a_later_write_had_seen_may_be_gone() {
    let mut lab = Lab::new();
    let (first, _) = lab.put(1, 1, &KeyState::default(), None);
    let (second, _) = lab.put(2, 1, &first, Some(first.clock()));
    let (third, _) = lab.put(1, 2, &second, None);
    for state in [&first, &second, &third] {
        assert_eq!(lab.lost(state), None);
    }
}

#[test]
fn siblings_may_not_be_gone() {
    let mut lab = Lab::new();
    let (first, one) = lab.put(1, 1, &KeyState::default(), None);
    let (both, two) = lab.put(1, 2, &first, Some(&VersionVector::new()));
    assert_eq!(lab.lost(&both), None);
    // The whole vector with only the new value: the first one was dropped without a trace.
    let write_id = WriteId {
        client: 0,
        sequence: 0,
    };
    let only = KeyState::default().put(two, None, Timestamp::default(), write_id, None);
    assert_eq!(lab.lost(&only.expect("a new dot")), Some(one));
}

#[test]
fn a_write_that_is_outnumbered_is_lost() {
    let mut lab = Lab::new();
    let (first, _) = lab.put(1, 1, &KeyState::default(), None);
    // A crash takes the second from n1, whose next one, by a client that knows the first, has a higher number.
    let (second, two) = lab.put(1, 2, &first, None);
    let (third, _) = lab.put(1, 3, &first, Some(first.clock()));
    assert_eq!(lab.lost(&third), Some(two));
    assert_eq!(lab.lost(&second.merge(&third)), Some(two));
}

#[test]
fn a_write_that_is_gone_replaces_nothing() {
    let mut lab = Lab::new();
    let (first, one) = lab.put(1, 1, &KeyState::default(), None);
    // The second had seen the first, and is outnumbered by the third, which has seen neither.
    let (second, two) = lab.put(1, 2, &first, None);
    let (third, _) = lab.put(1, 3, &first, Some(&VersionVector::new()));
    assert_eq!(third.sibling(one).map(|sibling| sibling.dot), Some(one));
    assert_eq!(lab.lost(&third), Some(two));
    assert_eq!(lab.lost(&second.merge(&third)), Some(two));
}

#[test]
fn only_what_rotted_everywhere_is_forfeited() {
    let mut lab = Lab::new();
    let (first, one) = lab.put(1, 1, &KeyState::default(), None);
    let (_, two) = lab.put(1, 2, &first, Some(&VersionVector::new()));
    // Another replica has the first one only.
    lab.write_model.forfeit(KEYSPACE, &key(), first.clock());
    let forfeited = |dot| lab.write_model.birth(KEYSPACE, dot).map(|birth| birth.forfeited);
    assert_eq!((forfeited(one), forfeited(two)), (Some(false), Some(true)));
}

#[test]
fn a_dot_names_one_write() {
    let mut lab = Lab::new();
    let (_, dot) = lab.put(1, 1, &KeyState::default(), None);
    let first = lab
        .write_model
        .birth(KEYSPACE, dot)
        .cloned()
        .expect("it was born");
    assert_eq!(
        lab.write_model.born(KEYSPACE, dot, first.clone()),
        Ok(()),
        "a repeated attempt"
    );
    let other = Birth { value: None, ..first };
    assert!(lab.write_model.born(KEYSPACE, dot, other).is_err());
}
