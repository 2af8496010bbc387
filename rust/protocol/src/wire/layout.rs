//! The layout: all that determines the placement of keys, short enough for a hello.
//!
//! Two nodes with different layouts would write where the other one does not read. So they compare layouts before anything
//! else, and a data directory keeps the layout with which its data was placed. Addresses are not part of it: they may
//! change.

use quorate_core::ids::NodeId;
use quorate_ring::{HashKind, RingSettings};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::topology::{Member, Topology};

/// The number of members that a layout lists; the others have one fingerprint, so that a hello stays small.
const LISTED: usize = 256;

/// A fingerprint of the placement of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    vnodes: u16,
    hash: HashKind,
    /// The members with the lowest ids, ascending, each with a fingerprint of its rack and datacenter.
    members: Vec<(NodeId, u32)>,
    /// A fingerprint of all further members.
    beyond: u64,
}

/// The first difference of two layouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub setting: &'static str,
    /// Its value in their layout.
    pub theirs: String,
    /// Its value in our layout.
    pub ours: String,
}

impl Layout {
    /// The layout of a topology.
    pub fn of(topology: &Topology) -> Self {
        let RingSettings { vnodes, hash } = topology.ring;
        let (listed, further) = topology.members.split_at(topology.members.len().min(LISTED));
        let mut beyond = Xxh3::new();
        for member in further {
            beyond.update(&member.id.0.to_le_bytes());
            beyond.update(&place(member).to_le_bytes());
        }
        Layout {
            vnodes,
            hash,
            // Half of the hash is enough to detect a mistake.
            members: listed
                .iter()
                .map(|member| (member.id, place(member) as u32))
                .collect(),
            beyond: beyond.digest(),
        }
    }

    /// The first difference between this layout, theirs, and ours.
    pub fn difference(&self, ours: &Layout) -> Option<Difference> {
        let differ = |setting, theirs: String, ours: String| {
            Some(Difference {
                setting,
                theirs,
                ours,
            })
        };
        if self.hash != ours.hash {
            let words = |layout: &Layout| format!("hash={}", layout.hash);
            return differ("hash", words(self), words(ours));
        }
        if self.vnodes != ours.vnodes {
            let words = |layout: &Layout| format!("vnodes={}", layout.vnodes);
            return differ("vnodes", words(self), words(ours));
        }
        if self.ids().ne(ours.ids()) {
            return differ("members", self.listing(), ours.listing());
        }
        let moved = self
            .members
            .iter()
            .zip(&ours.members)
            .find(|(theirs, ours)| theirs != ours);
        if let Some(((node, _), _)) = moved {
            let theirs = format!("another rack or datacenter for {node}");
            return differ(
                "rack and datacenter of each member",
                theirs,
                "this one".to_owned(),
            );
        }
        if self.beyond != ours.beyond {
            let theirs = format!("other members, racks or datacenters after the first {LISTED}");
            return differ("members", theirs, "these".to_owned());
        }
        None
    }

    /// Whether both hash keys to tokens and assign tokens in the same way.
    pub fn same_ring(&self, other: &Layout) -> bool {
        self.hash == other.hash && self.vnodes == other.vnodes
    }

    fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|(node, _)| *node)
    }

    /// The members as text, the first ones if there are many.
    fn listing(&self) -> String {
        const SHOWN: usize = 16;
        let shown: Vec<String> = self.ids().take(SHOWN).map(|node| node.to_string()).collect();
        let more = if self.members.len() > SHOWN { ", …" } else { "" };
        format!("{} members ({}{more})", self.members.len(), shown.join(", "))
    }
}

/// A fingerprint of a member's location.
fn place(member: &Member) -> u64 {
    let mut text = (member.rack.len() as u64).to_le_bytes().to_vec();
    text.extend_from_slice(member.rack.as_bytes());
    text.extend_from_slice(member.datacenter.as_bytes());
    xxh3_64(&text)
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::ClusterId;

    use super::*;
    use crate::wire::MAX_HELLO;

    fn topology(nodes: u16) -> Topology {
        let members = (1..=nodes).map(|id| Member {
            id: NodeId(id),
            peer_address: format!("127.0.0.1:{id}"),
            client_address: String::new(),
            http_address: String::new(),
            rack: "a".to_owned(),
            datacenter: "b".to_owned(),
        });
        Topology::new(ClusterId(7), 1, members.collect(), RingSettings::default()).unwrap()
    }

    /// The difference after a change of the topology of three.
    fn found(change: impl Fn(&mut Topology)) -> Option<Difference> {
        let mut changed = topology(3);
        change(&mut changed);
        Layout::of(&changed).difference(&Layout::of(&topology(3)))
    }

    #[test]
    fn everything_that_places_keys_is_compared_and_named() {
        let said = |change: fn(&mut Topology)| {
            let found = found(change).expect("a difference");
            (found.setting, found.theirs, found.ours)
        };
        let words = |setting, theirs: &str, ours: &str| (setting, theirs.to_owned(), ours.to_owned());
        assert_eq!(
            said(|topology| topology.ring.hash = HashKind::Md5),
            words("hash", "hash=md5", "hash=murmur3")
        );
        assert_eq!(
            said(|topology| topology.ring.vnodes = 9),
            words("vnodes", "vnodes=9", "vnodes=150")
        );
        assert_eq!(
            said(|topology| drop(topology.members.remove(1))),
            words("members", "2 members (n1, n3)", "3 members (n1, n2, n3)")
        );
        type Change = fn(&mut Topology);
        let moves: [Change; 3] = [
            |topology| topology.members[2].rack = "c".to_owned(),
            |topology| topology.members[2].datacenter = "c".to_owned(),
            |topology| {
                (topology.members[2].rack, topology.members[2].datacenter) = ("ab".to_owned(), String::new());
            },
        ];
        for change in moves {
            assert!(found(change).expect("a difference").theirs.contains("for n3"));
        }
    }

    #[test]
    fn addresses_are_not_part_of_it() {
        let moved = |topology: &mut Topology| topology.members[0].peer_address = "elsewhere:1".to_owned();
        assert_eq!(found(moved), None);
    }

    #[test]
    fn the_largest_cluster_fits_into_a_hello_and_is_compared_to_the_last_member() {
        let whole = topology(2_000);
        let mut moved = whole.clone();
        moved.members[1_999].rack = "c".to_owned();
        let (whole, moved) = (Layout::of(&whole), Layout::of(&moved));
        assert!(moved.difference(&whole).is_some());
        assert!(postcard::to_stdvec(&whole).unwrap().len() < MAX_HELLO * 3 / 4);
    }
}
