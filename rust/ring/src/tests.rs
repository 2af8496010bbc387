//! Tests of the ring as a whole.

use super::*;

/// Nodes n1 to n`count`, in racks r0, r1, … in turn, all in one datacenter.
pub(super) fn members(count: u16, racks: u16) -> Vec<RingMember> {
    let member = |number: u16| RingMember {
        node: NodeId(number),
        rack: format!("r{}", number % racks),
        datacenter: "dc".to_owned(),
    };
    (1..=count).map(member).collect()
}

pub(super) fn ring(nodes: u16) -> Ring {
    Ring::build(&RingSettings::default(), &members(nodes, 1)).unwrap()
}

#[test]
fn the_order_of_the_members_does_not_matter() {
    let mut reversed = members(5, 2);
    reversed.reverse();
    let settings = RingSettings::default();
    let built = Ring::build(&settings, &members(5, 2)).unwrap();
    assert_eq!(built, Ring::build(&settings, &reversed).unwrap());
}

#[test]
fn building_is_adding_one_by_one() {
    let grown = ring(3).add(members(4, 1).remove(3)).unwrap();
    assert_eq!(grown, ring(4));
}

#[test]
fn every_node_has_its_tokens_and_arcs_include_their_ends() {
    let ring = ring(5);
    for member in ring.members() {
        let own = ring
            .tokens()
            .iter()
            .filter(|(_, node)| *node == member.node)
            .count();
        assert_eq!(own, 150, "{}", member.node);
    }
    for pair in ring.tokens().windows(2) {
        assert_eq!(ring.primary(pair[1].0), pair[1].1);
        assert_eq!(ring.primary(Token(pair[0].0.0 + 1)), pair[1].1);
    }
    let (first, last) = (ring.tokens()[0], ring.tokens()[ring.tokens().len() - 1]);
    assert_eq!(
        ring.primary(Token(last.0.0 + 1)),
        first.1,
        "after the last token the circle starts over"
    );
}

#[test]
fn the_table_agrees_with_the_walk() {
    for racks in 1..=3 {
        let ring = Ring::build(&RingSettings::default(), &members(6, racks)).unwrap();
        for replicas in 1..=6 {
            let table = ring.replicas(replicas).unwrap();
            assert_eq!(table.replicas(), replicas);
            for key in 0..500_u32 {
                let token = ring.token_of(&key.to_le_bytes());
                let list = table.lookup(token);
                assert_eq!(list, ring.preference_list(token, replicas).unwrap());
                assert_eq!(list[0], ring.primary(token));
                assert_eq!(table.sets().nth(table.set_of(token)), Some(list));
            }
            for (range, list) in table.arcs() {
                assert_eq!(table.lookup(range.end), list);
                assert_eq!(table.lookup(Token(range.start.0.wrapping_add(1))), list);
            }
        }
    }
}

#[test]
fn copies_spread_over_racks_and_datacenters_first() {
    let place = |number, rack: &str, datacenter: &str| RingMember {
        node: NodeId(number),
        rack: rack.to_owned(),
        datacenter: datacenter.to_owned(),
    };
    // Racks of the same name in two datacenters are two racks.
    let east = [
        place(1, "a", "east"),
        place(2, "a", "east"),
        place(3, "b", "east"),
    ];
    let west = [place(4, "a", "west"), place(5, "a", "west")];
    let ring = Ring::build(&RingSettings::default(), &[&east[..], &west[..]].concat()).unwrap();
    let table = ring.replicas(4).unwrap();
    for list in table.sets() {
        let of = |node: &NodeId| &ring.members()[usize::from(node.0) - 1];
        let in_east = |nodes: &[NodeId]| nodes.iter().filter(|node| of(node).datacenter == "east").count();
        assert_eq!(
            in_east(&list[..2]),
            1,
            "{list:?}: the first two are in different datacenters"
        );
        assert_eq!(in_east(list), 2, "{list:?}: two copies each");
        let in_b = list.iter().filter(|node| of(node).rack == "b").count();
        assert_eq!(in_b, 1, "{list:?}: the copies in the east are in different racks");
    }
}

#[test]
fn a_ring_of_one_and_of_few_tokens() {
    let one = ring(1);
    assert_eq!(one.replicas(1).unwrap().lookup(Token(9)), [NodeId(1)]);
    let settings = RingSettings {
        vnodes: 1,
        hash: HashKind::Xxh3,
    };
    for nodes in 1..=20 {
        let ring = Ring::build(&settings, &members(nodes, 1)).unwrap();
        assert_eq!(ring.tokens().len(), usize::from(nodes));
        assert_eq!(
            ring.replicas(nodes as u8).unwrap().sets().len(),
            usize::from(nodes)
        );
    }
}

#[test]
fn a_stored_ring_round_trips_or_is_rejected() {
    let ring = ring(3);
    let json = serde_json::to_string(&ring).unwrap();
    assert_eq!(serde_json::from_str::<Ring>(&json).unwrap(), ring);
    let bytes = postcard::to_stdvec(&ring).unwrap();
    assert_eq!(postcard::from_bytes::<Ring>(&bytes).unwrap(), ring);

    let stored = |tokens: &[(u64, u16)]| {
        let tokens = tokens
            .iter()
            .map(|(token, node)| (Token(*token), NodeId(*node)))
            .collect();
        Ring::from_tokens(RingSettings::default(), members(2, 1), tokens)
    };
    assert_eq!(
        stored(&[(7, 2), (1, 1)]).unwrap().tokens()[0],
        (Token(1), NodeId(1))
    );
    assert_eq!(
        stored(&[(1, 1), (1, 2)]),
        Err(RingError::DuplicateToken(Token(1)))
    );
    assert_eq!(
        stored(&[(1, 1), (2, 3)]),
        Err(RingError::UnknownMember(NodeId(3)))
    );
    assert_eq!(
        stored(&[(1, 1), (2, 1)]),
        Err(RingError::MemberWithoutToken(NodeId(2)))
    );
    let damaged = json.replacen(r#""node":1"#, r#""node":9"#, 1);
    assert!(serde_json::from_str::<Ring>(&damaged).is_err());
}

#[test]
fn invalid_input_is_rejected() {
    let build = |vnodes, members: &[RingMember]| {
        let settings = RingSettings {
            vnodes,
            hash: HashKind::Md5,
        };
        Ring::build(&settings, members).unwrap_err()
    };
    assert_eq!(build(150, &[]), RingError::NoMembers);
    assert_eq!(build(0, &members(1, 1)), RingError::NoVnodes);
    let twice = [members(2, 1), members(2, 2)].concat();
    assert_eq!(build(150, &twice), RingError::DuplicateMember(NodeId(1)));
    let full = RingError::TooManyTokens {
        members: 2,
        vnodes: u16::MAX,
    };
    assert_eq!(build(u16::MAX, &members(2, 1)), full);

    let ring = ring(2);
    assert_eq!(
        ring.add(RingMember::new(NodeId(2))),
        Err(RingError::DuplicateMember(NodeId(2)))
    );
    assert_eq!(ring.remove(NodeId(3)), Err(RingError::UnknownMember(NodeId(3))));
    let alone = ring.remove(NodeId(2)).unwrap();
    assert_eq!(alone.remove(NodeId(1)), Err(RingError::LastMember(NodeId(1))));
    for replicas in [0, 3] {
        let refused = RingError::BadReplicas { replicas, nodes: 2 };
        assert_eq!(ring.replicas(replicas), Err(refused.clone()));
        assert_eq!(ring.preference_list(Token(0), replicas), Err(refused));
    }
}
