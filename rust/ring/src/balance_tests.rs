//! The guarantee of balance: 150 vnodes, 3 to 9 nodes, primaries below 5% standard deviation, after any
//! additions and removals; and the report.

use proptest::prelude::*;

use super::tests::{members, ring};
use super::*;

fn report(ring: &Ring) -> BalanceReport {
    balance(ring, 3.min(ring.members().len() as u8)).unwrap()
}

#[test]
fn fresh_rings_are_balanced() {
    for racks in 1..=3 {
        for nodes in 3..=9 {
            let ring = Ring::build(&RingSettings::default(), &members(nodes, racks)).unwrap();
            let report = report(&ring);
            assert!(
                report.primary.sd_percent < 2.0,
                "{nodes} nodes, {racks} racks: {:?}",
                report.primary
            );
            // Racks of unequal size cannot store equal amounts.
            if nodes % racks == 0 {
                assert!(
                    report.stored.sd_percent < 5.0,
                    "{nodes} nodes, {racks} racks: {:?}",
                    report.stored
                );
            }
            assert!(report.primary.sd_percent < report.random_sd_percent);
        }
    }
}

#[test]
fn one_change_of_a_fresh_ring_moves_little_and_keeps_balance() {
    for nodes in 3..=9 {
        let ring = ring(nodes);
        let grown = ring
            .add(members(nodes + 1, 1).remove(usize::from(nodes)))
            .unwrap();
        let to_new = movement(&ring, &grown, 1).unwrap().moved_share() * f64::from(nodes + 1);
        assert!(
            (0.95..1.05).contains(&to_new),
            "{nodes} nodes, one more gets {to_new} of its share"
        );
        for member in ring.members() {
            let smaller = ring.remove(member.node).unwrap();
            let report = report(&smaller);
            assert!(
                report.primary.sd_percent < 3.0,
                "{nodes} without {}: {:?}",
                member.node,
                report.primary
            );
            assert!(
                report.stored.sd_percent < 6.0,
                "{nodes} without {}: {:?}",
                member.node,
                report.stored
            );
            if nodes > 3 {
                let moved = movement(&ring, &smaller, 3).unwrap().moved_share() * f64::from(nodes);
                assert!(
                    moved < 1.3,
                    "{nodes} without {}: {moved} of its copies moved",
                    member.node
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_history_of_changes_keeps_balance(
        start in 3..=9_u16, racks in 1..=4_u16, steps in prop::collection::vec(any::<(bool, prop::sample::Index)>(), 12),
    ) {
        let mut ring = Ring::build(&RingSettings::default(), &members(start, racks)).unwrap();
        for (next, (add, which)) in (start + 1..).zip(steps) {
            let count = ring.members().len();
            ring = if count == 3 || (add && count < 9) {
                ring.add(members(next, racks).remove(usize::from(next) - 1)).unwrap()
            } else {
                ring.remove(which.get(ring.members()).node).unwrap()
            };
            let spread = report(&ring).primary;
            prop_assert!(spread.sd_percent < 5.0, "{} members: {spread:?}", ring.members().len());
        }
    }
}

#[test]
fn the_report_of_a_known_ring() {
    // n1 owns a quarter of the circle, n2 half, n3 a quarter.
    let quarter = 1 << 62;
    let tokens = [(quarter, 1), (3 * quarter, 2), (0, 3)];
    let tokens = tokens
        .into_iter()
        .map(|(token, node)| (Token(token), NodeId(node)))
        .collect();
    let settings = RingSettings {
        vnodes: 1,
        ..RingSettings::default()
    };
    let ring = Ring::from_tokens(settings, members(3, 1), tokens).unwrap();
    let report = balance(&ring, 2).unwrap();
    let rows: Vec<_> = report
        .nodes
        .iter()
        .map(|each| (each.node.0, each.vnodes, each.primary, each.stored))
        .collect();
    assert_eq!(rows, [(1, 1, 0.25, 0.5), (2, 1, 0.5, 0.75), (3, 1, 0.25, 0.75)]);
    assert_eq!(
        report.primary.most_loaded,
        Load {
            node: NodeId(2),
            amount: 0.5
        }
    );
    assert_eq!(
        report.primary.least_loaded,
        Load {
            node: NodeId(1),
            amount: 0.25
        }
    );
    // Deviations from 1/3: -1/12, 2/12, -1/12.
    let expected = (6.0_f64 / 144.0 / 3.0).sqrt();
    assert!((report.primary.standard_deviation - expected).abs() < 1e-12);
    assert!((report.primary.sd_percent - 300.0 * expected).abs() < 1e-9);
    assert!((report.primary.score - (100.0 - 300.0 * expected)).abs() < 1e-9);
    assert!((report.stored.mean - 2.0 / 3.0).abs() < 1e-12);
    // sqrt(2 / 4)
    assert!((report.random_sd_percent - 70.710_678).abs() < 1e-6);
    assert!((random_sd_percent(3, 150) - 6.659).abs() < 1e-3);

    let counted = balance_of_keys(&ring, 1, [1, quarter, quarter + 1, 0, u64::MAX].map(Token)).unwrap();
    assert_eq!(
        counted.nodes.iter().map(|each| each.primary).collect::<Vec<_>>(),
        [2, 1, 2]
    );
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<BalanceReport>(&json).unwrap(), report);
}

#[test]
fn actual_keys_follow_the_arcs() {
    for hash in HashKind::ALL {
        let settings = RingSettings { vnodes: 150, hash };
        let ring = Ring::build(&settings, &members(5, 1)).unwrap();
        let keys = (0..100_000_u32).map(|number| ring.token_of(format!("user-{number}").as_bytes()));
        let counted = balance_of_keys(&ring, 3, keys).unwrap();
        // 20,000 keys each, plus or minus 126 by chance.
        assert!(counted.primary.sd_percent < 2.0, "{hash}: {:?}", counted.primary);
        assert!(counted.stored.sd_percent < 5.0, "{hash}: {:?}", counted.stored);
    }
}

#[test]
fn no_keys_are_perfectly_balanced() {
    let counted = balance_of_keys(&ring(3), 1, []).unwrap();
    assert_eq!((counted.primary.sd_percent, counted.primary.score), (0.0, 100.0));
}

#[test]
fn rings_with_different_hashes_are_not_compared() {
    let settings = RingSettings {
        hash: HashKind::Md5,
        ..RingSettings::default()
    };
    let other = Ring::build(&settings, &members(3, 1)).unwrap();
    let refused = RingError::HashMismatch {
        old: HashKind::Murmur3,
        new: HashKind::Md5,
    };
    assert_eq!(movement(&ring(3), &other, 1), Err(refused));
}
