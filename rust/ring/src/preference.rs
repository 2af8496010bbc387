//! Preference lists: the nodes that store a key, most preferred first.
//!
//! Walk clockwise from the key's token and take each node once. Without racks that is the list. With them,
//! the next on the list is always a node of the datacenter that the list uses least, among those a node of
//! the rack that it uses least, among those the first one clockwise. So a key's copies use as many
//! datacenters and racks as exist before any is used twice, and are spread as evenly as possible.
//! (Cassandra's `NetworkTopologyStrategy` does the same for the first round of racks and then takes the
//! skipped nodes in clockwise order.)
//!
//! The choice does not depend on the length of the list: **the list for n is always a prefix of the list for
//! n + 1**. And the first on the list is always the owner of the arc.

use super::RingMember;

/// Index of a member in the ring's list of members.
pub(super) type Slot = u16;

/// The racks and datacenters of a ring's members, as small numbers.
pub(super) struct Sites {
    racks: Vec<Slot>,
    datacenters: Vec<Slot>,
    /// All are in the same rack, or each in its own rack of the same datacenter: the list is in clockwise
    /// order.
    plain: bool,
}

impl Sites {
    pub(super) fn of(members: &[RingMember]) -> Self {
        let numbered = |same: &dyn Fn(&RingMember, &RingMember) -> bool| -> Vec<Slot> {
            members
                .iter()
                .map(|member| members.iter().position(|other| same(member, other)).unwrap_or(0) as Slot)
                .collect()
        };
        let datacenters = numbered(&|a, b| a.datacenter == b.datacenter);
        let racks = numbered(&|a, b| a.datacenter == b.datacenter && a.rack == b.rack);
        let one_datacenter = datacenters.iter().all(|site| *site == 0);
        let one_rack = racks.iter().all(|site| *site == 0);
        let own_racks = racks
            .iter()
            .enumerate()
            .all(|(slot, site)| slot == usize::from(*site));
        Sites {
            plain: one_datacenter && (one_rack || own_racks),
            racks,
            datacenters,
        }
    }

    /// Appends the first `n` of the preference list to `list`. `clockwise` is every member, in clockwise
    /// order from the key's token.
    pub(super) fn prefer(&self, clockwise: &[Slot], n: usize, list: &mut Vec<Slot>) {
        if self.plain {
            list.extend_from_slice(&clockwise[..n]);
            return;
        }
        let begin = list.len();
        for _ in 0..n {
            let chosen = &list[begin..];
            let uses = |sites: &[Slot], slot: Slot| {
                let site = sites[usize::from(slot)];
                chosen
                    .iter()
                    .filter(|other| sites[usize::from(**other)] == site)
                    .count()
            };
            let next = clockwise
                .iter()
                .filter(|slot| !chosen.contains(slot))
                .min_by_key(|slot| (uses(&self.datacenters, **slot), uses(&self.racks, **slot)));
            match next {
                Some(slot) => list.push(*slot),
                None => unreachable!("n is at most the number of members"),
            }
        }
    }
}

/// The preference lists of all arcs, `n` slots each, in the order of the tokens whose owners are given.
pub(super) fn preference_lists(owners: &[Slot], sites: &Sites, n: usize) -> Vec<Slot> {
    // Clockwise order from the first token; then backwards: one arc earlier, that arc's owner comes first and the
    // others keep their order.
    let mut clockwise = clockwise_from(owners, 0);
    assert!(
        n <= clockwise.len(),
        "{n} replicas of {} members",
        clockwise.len()
    );
    let mut lists = vec![0; owners.len() * n];
    let mut list = Vec::with_capacity(n);
    for (arc, owner) in owners.iter().enumerate().rev() {
        if let Some(place) = clockwise.iter().position(|slot| slot == owner) {
            clockwise[..=place].rotate_right(1);
        }
        list.clear();
        sites.prefer(&clockwise, n, &mut list);
        lists[arc * n..(arc + 1) * n].copy_from_slice(&list);
    }
    lists
}

/// Every member once, in clockwise order from the arc numbered `first`.
pub(super) fn clockwise_from(owners: &[Slot], first: usize) -> Vec<Slot> {
    let members = owners.iter().max().map_or(0, |slot| usize::from(*slot) + 1);
    let mut seen = vec![false; members];
    let mut clockwise = Vec::with_capacity(members);
    for owner in owners[first..].iter().chain(&owners[..first]) {
        if !std::mem::replace(&mut seen[usize::from(*owner)], true) {
            clockwise.push(*owner);
            if clockwise.len() == members {
                break;
            }
        }
    }
    clockwise
}
