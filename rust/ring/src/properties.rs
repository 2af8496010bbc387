//! Properties of every ring, checked on generated ones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Settings with few tokens: the properties do not depend on balance, and rings are built quickly.
fn any_settings() -> impl Strategy<Value = RingSettings> {
    (1..40_u16, prop::sample::select(HashKind::ALL.to_vec()))
        .prop_map(|(vnodes, hash)| RingSettings { vnodes, hash })
}

fn any_member(node: u16) -> impl Strategy<Value = RingMember> {
    (0..3_u8, 0..2_u8).prop_map(move |(rack, datacenter)| RingMember {
        node: NodeId(node),
        rack: format!("rack{rack}"),
        datacenter: format!("dc{datacenter}"),
    })
}

/// 1 to 12 members with arbitrary ids, in three racks in each of two datacenters.
fn any_members() -> impl Strategy<Value = Vec<RingMember>> {
    prop::collection::btree_set(1..=u16::MAX, 1..=12)
        .prop_flat_map(|nodes| nodes.into_iter().map(any_member).collect::<Vec<_>>())
}

fn any_ring() -> impl Strategy<Value = Ring> {
    (any_settings(), any_members()).prop_map(|(settings, members)| Ring::build(&settings, &members).unwrap())
}

/// A ring, and one derived from it by adding or removing a member.
fn any_change() -> impl Strategy<Value = (Ring, Ring)> {
    (any_ring(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(ring, which, add)| {
        let changed = if add || ring.members().len() == 1 {
            let free = (1..)
                .map(NodeId)
                .find(|node| ring.members().iter().all(|member| member.node != *node));
            ring.add(RingMember::new(free.unwrap())).unwrap()
        } else {
            ring.remove(which.get(ring.members()).node).unwrap()
        };
        (ring, changed)
    })
}

/// Tokens to test: arbitrary ones, and the borders of arcs.
fn probes(rings: &[&Ring], arbitrary: &[u64]) -> Vec<Token> {
    let borders = rings
        .iter()
        .flat_map(|ring| ring.tokens())
        .flat_map(|(token, _)| [token.0.wrapping_sub(1), token.0, token.0.wrapping_add(1)]);
    borders
        .chain(arbitrary.iter().copied())
        .chain([0, u64::MAX])
        .map(Token)
        .collect()
}

/// The definition: the distinct owners on a clockwise walk from the token.
fn walk(ring: &Ring, token: Token) -> Vec<NodeId> {
    let from = ring.tokens().iter().filter(|(end, _)| *end >= token);
    let around = ring.tokens().iter().filter(|(end, _)| *end < token);
    let mut nodes = Vec::new();
    for (_, node) in from.chain(around) {
        if !nodes.contains(node) {
            nodes.push(*node);
        }
    }
    nodes
}

fn member(ring: &Ring, node: NodeId) -> &RingMember {
    ring.members().iter().find(|member| member.node == node).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_members_make_the_same_ring(settings in any_settings(), members in any_members().prop_shuffle()) {
        let ring = Ring::build(&settings, &members).unwrap();
        let mut sorted = members.clone();
        sorted.sort();
        prop_assert_eq!(&ring, &Ring::build(&settings, &sorted).unwrap());
        prop_assert_eq!(ring.members(), &sorted);
        for member in &members {
            let own = ring.tokens().iter().filter(|(_, node)| *node == member.node).count();
            prop_assert_eq!(own, usize::from(settings.vnodes), "tokens of {}", member.node);
        }
        prop_assert!(ring.tokens().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn stored_tokens_make_the_same_ring(ring in any_ring()) {
        let tokens = ring.tokens().iter().rev().copied().collect();
        let again = Ring::from_tokens(*ring.settings(), ring.members().to_vec(), tokens).unwrap();
        prop_assert_eq!(&again, &ring);
        let bytes = postcard::to_stdvec(&ring).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Ring>(&bytes).unwrap(), &ring);
    }

    #[test]
    fn every_token_has_one_owner_and_a_list_that_begins_with_it(
        ring in any_ring(), arbitrary in prop::collection::vec(any::<u64>(), 20),
    ) {
        let tables: Vec<_> = (1..=ring.members().len() as u8).map(|n| ring.replicas(n).unwrap()).collect();
        let covered: u128 = tables[0].arcs().map(|(range, _)| range.size()).sum();
        prop_assert_eq!(covered, 1 << 64);
        let mut sets = BTreeSet::new();
        for token in probes(&[&ring], &arbitrary) {
            let owner = walk(&ring, token)[0];
            prop_assert_eq!(ring.primary(token), owner);
            let whole = ring.preference_list(token, ring.members().len() as u8).unwrap();
            prop_assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), ring.members().len(), "distinct");
            prop_assert_eq!(whole[0], owner);
            for table in &tables {
                // For any number of replicas, the list is a prefix of the longest.
                prop_assert_eq!(table.lookup(token), &whole[..usize::from(table.replicas())]);
            }
            let arcs = tables[0].arcs().filter(|(range, _)| range.contains(token));
            prop_assert_eq!(arcs.map(|(_, list)| list[0]).collect::<Vec<_>>(), vec![owner]);
            sets.insert(whole);
        }
        let longest = &tables[tables.len() - 1];
        prop_assert_eq!(longest.sets().map(<[NodeId]>::to_vec).collect::<BTreeSet<_>>(), sets);
    }

    #[test]
    fn lists_spread_over_datacenters_then_racks_then_go_clockwise(ring in any_ring(), token in any::<u64>()) {
        let token = Token(token);
        let clockwise = walk(&ring, token);
        let whole = ring.preference_list(token, ring.members().len() as u8).unwrap();
        for (place, chosen) in whole.iter().enumerate() {
            let cost = |node: &NodeId| {
                let candidate = member(&ring, *node);
                let before = || whole[..place].iter().map(|node| member(&ring, *node));
                let same_datacenter = before().filter(|m| m.datacenter == candidate.datacenter);
                let same_rack = same_datacenter.clone().filter(|m| m.rack == candidate.rack);
                (same_datacenter.count(), same_rack.count(), clockwise.iter().position(|n| n == node))
            };
            for other in &whole[place + 1..] {
                prop_assert!(cost(chosen) < cost(other), "{chosen} before {other} in {whole:?}");
            }
        }
    }

    #[test]
    fn moves_and_releases_lead_from_the_old_ring_to_the_new(
        (old, new) in any_change(), n in 1..=4_u8, arbitrary in prop::collection::vec(any::<u64>(), 20),
    ) {
        let n = n.min(old.members().len() as u8).min(new.members().len() as u8);
        let (before, after) = (old.replicas(n).unwrap(), new.replicas(n).unwrap());
        let movement = movement(&old, &new, n).unwrap();
        for token in probes(&[&old, &new], &arbitrary) {
            let mut nodes: BTreeSet<NodeId> = before.lookup(token).iter().copied().collect();
            for each in movement.moves.iter().filter(|each| each.range.contains(token)) {
                prop_assert_eq!(&each.from, before.lookup(token));
                prop_assert!(nodes.insert(each.to), "{} had it already", each.to);
            }
            for each in movement.releases.iter().filter(|each| each.range.contains(token)) {
                prop_assert!(nodes.remove(&each.node), "{} never had it", each.node);
            }
            prop_assert_eq!(nodes, after.lookup(token).iter().copied().collect());
        }
        prop_assert!(movement.moved_share() <= 1.0);
        let nothing = super::movement(&old, &old, n).unwrap();
        prop_assert!(nothing.moves.is_empty() && nothing.releases.is_empty());
    }

    #[test]
    fn adding_moves_no_token_and_data_only_to_the_new_node(ring in any_ring()) {
        let node = (1..).map(NodeId).find(|node| ring.members().iter().all(|m| m.node != *node)).unwrap();
        let grown = ring.add(RingMember::new(node)).unwrap();
        let others: Vec<_> = grown.tokens().iter().filter(|(_, owner)| *owner != node).copied().collect();
        prop_assert_eq!(&others, ring.tokens());
        prop_assert!(movement(&ring, &grown, 1).unwrap().moves.iter().all(|each| each.to == node));
    }

    #[test]
    fn reports_add_up(ring in any_ring(), n in 1..=4_u8, keys in prop::collection::vec(any::<u64>(), 0..200)) {
        let n = n.min(ring.members().len() as u8);
        let report = balance(&ring, n).unwrap();
        prop_assert!((report.nodes.iter().map(|each| each.primary).sum::<f64>() - 1.0).abs() < 1e-9);
        prop_assert!((report.nodes.iter().map(|each| each.stored).sum::<f64>() - f64::from(n)).abs() < 1e-9);
        prop_assert!(report.nodes.iter().all(|each| each.primary <= each.stored && each.stored <= 1.0 + 1e-9));

        let counted = balance_of_keys(&ring, n, keys.iter().copied().map(Token)).unwrap();
        prop_assert_eq!(counted.keys, keys.len() as u64);
        prop_assert_eq!(counted.nodes.iter().map(|each| each.primary).sum::<u64>(), counted.keys);
        prop_assert_eq!(counted.nodes.iter().map(|each| each.stored).sum::<u64>(), counted.keys * u64::from(n));
        for spread in [report.primary, report.stored, counted.primary, counted.stored] {
            prop_assert!(spread.least_loaded.amount <= spread.mean + 1e-9);
            prop_assert!(spread.most_loaded.amount >= spread.mean - 1e-9);
        }
    }
}
