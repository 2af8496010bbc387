//! Golden rings. Nodes that compute a ring must agree on it, across versions too, and stored topologies are
//! read by later versions: if one of these tests fails, the allocation or the format has changed, and
//! clusters would lose track of their data. Keep the old behaviour for the old format then, and give the new
//! one a name of its own.

use super::tests::{members, ring};
use super::*;

/// A fingerprint of all tokens and owners of a ring.
fn fingerprint(ring: &Ring) -> u64 {
    let bytes: Vec<u8> = ring
        .tokens()
        .iter()
        .flat_map(|(token, node)| [&token.0.to_be_bytes()[..], &node.0.to_be_bytes()[..]].concat())
        .collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[test]
fn a_small_ring() {
    let settings = RingSettings {
        vnodes: 4,
        hash: HashKind::Murmur3,
    };
    let ring = Ring::build(&settings, &members(3, 1)).unwrap();
    let tokens: Vec<String> = ring
        .tokens()
        .iter()
        .map(|(token, node)| format!("{token} {node}"))
        .collect();
    assert_eq!(tokens, SMALL);
}

#[test]
fn large_rings() {
    let racked = Ring::build(&RingSettings::default(), &members(9, 3)).unwrap();
    let rings = [ring(1), ring(3), ring(5), ring(9), racked.clone()];
    assert_eq!(rings.map(|ring| fingerprint(&ring)), LARGE);
    let after = [
        ring(5).remove(NodeId(2)).unwrap(),
        racked.remove(NodeId(4)).unwrap(),
    ];
    assert_eq!(after.map(|ring| fingerprint(&ring)), AFTER_REMOVAL);
}

#[test]
fn the_stored_form() {
    let tokens = vec![(Token(1), NodeId(1)), (Token(u64::MAX), NodeId(2))];
    let ring = Ring::from_tokens(RingSettings::default(), members(2, 1), tokens).unwrap();
    let bytes = postcard::to_stdvec(&ring).unwrap();
    // vnodes 150, murmur3; two members: node, rack, datacenter; two tokens: position, node. Numbers are varints.
    let expected = [
        &[0x96, 0x01, 0x00][..],
        &[2],
        &[1, 2, b'r', b'0', 2, b'd', b'c'],
        &[2, 2, b'r', b'0', 2, b'd', b'c'],
        &[2],
        &[1, 1],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 2],
    ]
    .concat();
    assert_eq!(bytes, expected);
    assert_eq!(postcard::from_bytes::<Ring>(&bytes).unwrap(), ring);
}

#[test]
fn preference_lists_of_known_keys() {
    let table = ring(5).replicas(3).unwrap();
    let lists = ["user-123", "a", ""].map(|key| {
        let nodes = table.lookup(HashKind::Murmur3.token_of(key.as_bytes()));
        nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(lists, LISTS);
}

/// Token and owner.
const SMALL: [&str; 12] = [
    "071b43a4c230977d n2",
    "1692161d100b05e5 n1",
    "2939fa99d5e858e5 n3",
    "3932275a251b0d37 n2",
    "4ba4271c88985f04 n3",
    "5bd238973a2b148a n1",
    "7d12cbc28e9f9ebd n2",
    "9e535eede31428f0 n1",
    "b673ed9c40ffdcfe n3",
    "cafbe80d2bb52902 n2",
    "e2f901ede74f632a n3",
    "f7a4712c74562914 n1",
];

/// Fingerprints of 1, 3, 5 and 9 nodes, and of 9 in three racks.
const LARGE: [u64; 5] = [
    6300242229916128711,
    5180047830123574429,
    16147143151129018192,
    18154677935768064777,
    16219831301382793,
];

/// Fingerprints of 5 nodes without n2, and of 9 in three racks without n4.
const AFTER_REMOVAL: [u64; 2] = [15540190748491410127, 8690674077426575037];

/// The first three nodes of five for three keys.
const LISTS: [&str; 3] = ["n2 n4 n3", "n4 n3 n1", "n3 n4 n2"];
