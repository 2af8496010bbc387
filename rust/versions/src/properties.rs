//! Properties of all states, whether or not a history of puts leads to them.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;

use super::tests::{bytes, replica, timestamp};
use super::*;

/// Few replicas and low counters, so that states overlap in every way.
pub(super) fn vector() -> impl Strategy<Value = VersionVector> {
    btree_map(1..4u16, 1..5u64, 0..4).prop_map(|counters| {
        counters
            .into_iter()
            .map(|(node, counter)| Dot {
                replica: replica(node),
                counter,
            })
            .collect()
    })
}

/// A sibling's content follows from its dot, except for a rare `flaw`: two writes under one dot.
fn sibling(dot: Dot, flaw: bool) -> Sibling {
    let number = u64::from(dot.replica.node().0) * 10 + dot.counter;
    Sibling {
        dot,
        value: (!number.is_multiple_of(4))
            .then(|| bytes(&format!("v{number}{}", if flaw { "!" } else { "" }))),
        timestamp: timestamp(number % 7),
        write_id: WriteId {
            client: 1,
            sequence: number / 2,
        },
    }
}

/// Any clock, with any set of siblings that it covers.
pub(super) fn state() -> impl Strategy<Value = KeyState> {
    let dots = btree_set((1..4u16, 1..5u64), 0..8);
    (vector(), dots, proptest::bool::weighted(0.05)).prop_map(|(clock, dots, flaw)| {
        let siblings = dots
            .into_iter()
            .map(|(node, counter)| Dot {
                replica: replica(node),
                counter,
            })
            .filter(|dot| clock.contains(*dot))
            .map(|dot| sibling(dot, flaw))
            .collect();
        KeyState::from_parts(clock, siblings)
    })
}

fn new_dot() -> impl Strategy<Value = Dot> {
    (1..4u16).prop_map(|node| Dot {
        replica: replica(node),
        counter: 9,
    })
}

fn put(state: &KeyState, dot: Dot, context: Option<&VersionVector>) -> KeyState {
    let new = sibling(dot, false);
    state
        .put(dot, new.value, new.timestamp, new.write_id, context)
        .expect("the dot is new")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn merge_is_commutative(a in state(), b in state()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
    }

    #[test]
    fn merge_is_associative(a in state(), b in state(), c in state()) {
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn merge_is_idempotent(a in state(), b in state()) {
        let merged = a.merge(&b);
        prop_assert_eq!(&a.merge(&a), &a);
        prop_assert_eq!(&merged.merge(&a), &merged);
        prop_assert_eq!(&merged.merge(&b), &merged);
    }

    #[test]
    fn an_empty_state_is_neutral(a in state()) {
        prop_assert_eq!(&a.merge(&KeyState::default()), &a);
    }

    #[test]
    fn includes_is_false_exactly_when_a_merge_changes_the_state(a in state(), b in state()) {
        prop_assert_eq!(a.includes(&b), a.merge(&b) == a);
        prop_assert!(a.merge(&b).includes(&a));
    }

    #[test]
    fn a_merge_keeps_siblings_that_were_not_replaced(a in state(), b in state()) {
        let merged = a.merge(&b);
        for (own, others) in [(&a, &b), (&b, &a)] {
            for sibling in own.siblings() {
                let kept = merged.sibling(sibling.dot).is_some();
                let replaced = others.clock().contains(sibling.dot) && others.sibling(sibling.dot).is_none();
                prop_assert_eq!(kept, !replaced, "{:?}", sibling);
            }
        }
    }

    #[test]
    fn a_put_with_the_full_context_leaves_one_value(a in state(), dot in new_dot()) {
        let put = put(&a, dot, Some(a.clock()));
        prop_assert_eq!(put.siblings().len(), 1);
        prop_assert_eq!(put.siblings()[0].dot, dot);
        prop_assert!(put.includes(&a), "no old sibling returns");
    }

    #[test]
    fn a_put_without_context_leaves_one_value(a in state(), dot in new_dot()) {
        prop_assert_eq!(put(&a, dot, None), put(&a, dot, Some(a.clock())));
    }

    #[test]
    fn a_put_replaces_exactly_the_siblings_that_its_context_covers(a in state(), context in vector(), dot in new_dot()) {
        let put = put(&a, dot, Some(&context));
        for sibling in a.siblings() {
            prop_assert_eq!(put.sibling(sibling.dot).is_some(), !context.contains(sibling.dot), "{:?}", sibling);
        }
        prop_assert_eq!(put.sibling(dot), Some(&sibling(dot, false)));
        prop_assert!(put.clock().dominates(&context) && put.clock().dominates(a.clock()));
    }

    #[test]
    fn a_value_that_the_context_covers_does_not_return(a in state(), b in state(), dot in new_dot()) {
        // The reader saw a; the coordinator knows only b, and receives a later.
        let merged = put(&b, dot, Some(a.clock())).merge(&a);
        for sibling in a.siblings() {
            prop_assert_eq!(merged.sibling(sibling.dot), None, "{:?}", sibling);
        }
    }

    #[test]
    fn a_dot_that_was_seen_is_rejected(a in state(), context in vector(), node in 1..4u16, counter in 1..6u64) {
        let dot = Dot { replica: replica(node), counter };
        let new = sibling(dot, false);
        let put = a.put(dot, new.value, new.timestamp, new.write_id, Some(&context));
        prop_assert_eq!(put.is_err(), a.clock().contains(dot) || context.contains(dot));
    }

    #[test]
    fn compare_agrees_with_the_sets_of_dots(a in vector(), b in vector()) {
        let dots = |vector: &VersionVector| -> std::collections::BTreeSet<Dot> {
            vector
                .iter()
                .flat_map(|last| (1..=last.counter).map(move |counter| Dot { counter, ..last }))
                .collect()
        };
        let (left, right) = (dots(&a), dots(&b));
        let expected = if left == right {
            Causality::Equal
        } else if left.is_subset(&right) {
            Causality::Before
        } else if left.is_superset(&right) {
            Causality::After
        } else {
            Causality::Concurrent
        };
        prop_assert_eq!(a.compare(&b), expected);
        let mut merged = a.clone();
        merged.merge(&b);
        prop_assert_eq!(dots(&merged), &left | &right);
    }

    #[test]
    fn encoded_states_are_decoded_and_equal_states_have_equal_digests(a in state(), b in state()) {
        let encoded = a.encode();
        prop_assert_eq!(encoded.len(), a.encoded_size());
        prop_assert_eq!(&KeyState::decode(&encoded).unwrap(), &a);
        prop_assert_eq!(a.digest() == b.digest(), a == b);
    }

    #[test]
    fn contexts_are_carried_unchanged(a in vector()) {
        let context = Context::new(KeyspaceId(1), &Key::try_from("k").unwrap(), a);
        prop_assert_eq!(Context::decode(&context.encode()).unwrap(), context);
    }

    #[test]
    fn damaged_bytes_are_rejected_or_a_valid_state(
        a in state(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
        noise in vec(any::<u8>(), 0..20),
    ) {
        let mut damaged = a.encode().to_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        damaged.truncate(cut.index(damaged.len() + 1).max(at));
        for bytes in [damaged, noise] {
            if let Ok(state) = KeyState::decode(&bytes) {
                // A merge asserts the invariants of its result.
                prop_assert_eq!(&state.merge(&state), &state);
            }
            if let Ok(context) = Context::decode(&bytes) {
                prop_assert!(context.iter().all(|dot| dot.counter > 0));
            }
        }
    }
}
