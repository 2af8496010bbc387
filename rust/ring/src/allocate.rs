//! Token allocation: where a new node's tokens go, and what happens when a node leaves.
//!
//! # A node joins
//! The first node's tokens are spread evenly, each at an arbitrary position in its own cell of the circle.
//! Each further node splits arcs of the others, one token in each: every other node gives what it has above
//! the new mean, with a proportional number of the new tokens. Then only the new tokens are shifted within
//! the arcs that they split until the primaries and the stored copies are balanced (see `tune`): 150 free
//! positions against three equations per node.
//!
//! The choice of arcs decides the quality. Long arcs leave room to shift. But a node also stores what lies
//! before its arcs, as second and third choice, and what lies before the longest arcs is shorter than the
//! mean. So arcs are ranked by their own length and, with some weight, by what lies before them. The best
//! weight depends on the ring's history: several weights are tried, and the best result is used.
//!
//! # A node leaves
//! Its arcs go to their successors, which is nearly fair, since they were spread among those of all the
//! others. The rest is balanced by shifting single tokens of the others, the most effective first, and no
//! more than needed.

use std::cmp::Reverse;

use quorate_core::ids::NodeId;

use super::preference::{Sites, Slot};
use super::token::SPACE;
use super::tune::Tuning;
use super::{RingMember, Token, slots_of};

/// The weights to try: how much what lies before an arc counts against four times its own length.
const WEIGHTS: [u128; 5] = [2, 3, 4, 1, 0];

/// How far to look before an arc: over the arcs of this many nodes (second and third choice).
const NODES_BEFORE: usize = 2;

/// A split leaves at least this part of the arc on both sides: 1/64.
const LEAST_PIECE: u128 = 64;

/// A weight is good enough when every node's primary share is within this part of the mean (0.5%) …
const GOOD_PRIMARY: i128 = 200;

/// … and its shares of the first two and three copies are within this part (2%).
const GOOD_COPIES: i128 = 50;

/// After a removal tokens are shifted until every node's primary share is within this part of the mean (3%) …
const FAIR_PRIMARY: i128 = 33;

/// … and its share of the copies is within this part (5%) …
const FAIR_COPIES: i128 = 20;

/// … or no step for the copies' sake removes this part of the imbalance any more (uneven racks allow no better).
const WORTHWHILE: i128 = 64;

/// The tokens of a ring that `node`, one of `members`, joins. `tokens` are those of the others, ascending.
pub(super) fn add(
    vnodes: u16,
    members: &[RingMember],
    tokens: &[(Token, NodeId)],
    node: NodeId,
) -> Vec<(Token, NodeId)> {
    if tokens.is_empty() {
        let cell = SPACE / u128::from(vnodes);
        let place = |i: u64| Token((u128::from(i) * cell + u128::from(scatter(i + 1)) % cell) as u64);
        return (0..u64::from(vnodes)).map(|i| (place(i), node)).collect();
    }
    let arcs = arcs_by_owner(members, tokens);
    let sites = Sites::of(members);
    let slot = members.partition_point(|member| member.node < node) as Slot;
    let mut best: Option<Tuning> = None;
    for weight in WEIGHTS {
        let mut all = tokens.to_vec();
        all.extend(
            splits(vnodes, &arcs, weight)
                .into_iter()
                .map(|token| (token, node)),
        );
        all.sort_unstable();
        let mut tuning = tuning_of(members, &sites, &all);
        tuning.settle(slot, LEAST_PIECE as i128);
        let good =
            tuning.within(1, GOOD_PRIMARY) && tuning.within(2, GOOD_COPIES) && tuning.within(3, GOOD_COPIES);
        if best
            .as_ref()
            .is_none_or(|best| tuning.imbalance() < best.imbalance())
        {
            best = Some(tuning);
        }
        if good {
            break;
        }
    }
    best.map_or_else(Vec::new, |tuning| tokens_of(members, &tuning))
}

/// Shifts as few of `tokens` as needed to bring every node's shares within the tolerance, or as near to that
/// as the racks permit.
pub(super) fn rebalance(members: &[RingMember], tokens: &[(Token, NodeId)]) -> Vec<(Token, NodeId)> {
    let mut tuning = tuning_of(members, &Sites::of(members), tokens);
    let room = (SPACE / tokens.len() as u128 / LEAST_PIECE) as i128;
    // A token rarely has to be shifted twice; the bound guarantees termination.
    for _ in 0..tokens.len() {
        let fair = tuning.within(1, FAIR_PRIMARY);
        if fair && tuning.within(3, FAIR_COPIES) {
            break;
        }
        let enough = if fair { tuning.imbalance() / WORTHWHILE } else { 0 };
        match tuning.best_of_all(room) {
            Some(step) if step.gain > enough => tuning.take(step),
            _ => break,
        }
    }
    tokens_of(members, &tuning)
}

/// An arc that can be split.
struct Arc {
    start: u64,
    size: u128,
    /// The part of the circle right before it, over the arcs of [`NODES_BEFORE`] nodes.
    before: u128,
}

/// The arcs of each member, in the order of the circle.
fn arcs_by_owner(members: &[RingMember], tokens: &[(Token, NodeId)]) -> Vec<Vec<Arc>> {
    let owners = slots_of(members, tokens);
    let count = tokens.len();
    let start_of = |arc: usize| tokens[(arc + count - 1) % count].0.0;
    let size_of = |arc: usize| match tokens[arc].0.0.wrapping_sub(start_of(arc)) {
        0 => SPACE,
        size => u128::from(size),
    };
    let mut arcs: Vec<Vec<Arc>> = members.iter().map(|_| Vec::new()).collect();
    for (arc, owner) in owners.iter().enumerate() {
        let mut seen: [Option<Slot>; NODES_BEFORE] = [None; NODES_BEFORE];
        let mut before = 0;
        for back in 1..count {
            let other = (arc + count - back) % count;
            if !seen.contains(&Some(owners[other])) {
                match seen.iter_mut().find(|place| place.is_none()) {
                    Some(place) => *place = Some(owners[other]),
                    None => break,
                }
            }
            before += size_of(other);
        }
        // An arc of a few tokens (possible only in a foreign topology) cannot be split.
        if size_of(arc) >= LEAST_PIECE {
            arcs[usize::from(*owner)].push(Arc {
                start: start_of(arc),
                size: size_of(arc),
                before,
            });
        }
    }
    arcs
}

/// New tokens inside the arcs, such that every owner gives what it has above the new mean.
fn splits(vnodes: u16, arcs_by_owner: &[Vec<Arc>], weight: u128) -> Vec<Token> {
    let mean = SPACE / arcs_by_owner.len() as u128;
    let share = |arcs: &Vec<Arc>| arcs.iter().map(|arc| arc.size).sum::<u128>();
    let excess: Vec<u128> = arcs_by_owner
        .iter()
        .map(|arcs| share(arcs).saturating_sub(mean))
        .collect();
    let counts = apportion(vnodes, &excess);

    let mut new = Vec::with_capacity(usize::from(vnodes));
    for ((arcs, excess), count) in arcs_by_owner.iter().zip(excess).zip(counts) {
        // In eight classes, best first; within a class in an order unrelated to the arcs' positions.
        let rank = |arc: &Arc| 4 * arc.size + weight * arc.before;
        let highest = arcs.iter().map(rank).max().unwrap_or(1);
        let mut ranked: Vec<&Arc> = arcs.iter().collect();
        ranked.sort_unstable_by_key(|arc| (Reverse(8 * rank(arc) / highest), scatter(arc.start), arc.start));
        ranked.truncate(count);
        let split: u128 = ranked.iter().map(|arc| arc.size).sum();
        for arc in ranked {
            // `excess` is below 2^64 and so, but for a ring of one token, is `size`.
            let piece = (arc.size >> 1) * excess / (split >> 1);
            let least = arc.size / LEAST_PIECE;
            new.push(Token(
                arc.start
                    .wrapping_add(piece.clamp(least, arc.size - least) as u64),
            ));
        }
    }
    new
}

/// Divides `total` in proportion to `weights`, in whole numbers (largest remainders first).
fn apportion(total: u16, weights: &[u128]) -> Vec<usize> {
    let total = u128::from(total);
    let sum = weights.iter().sum::<u128>().max(1);
    let mut parts: Vec<usize> = weights
        .iter()
        .map(|weight| (total * weight / sum) as usize)
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|slot| Reverse(total * weights[*slot] % sum));
    let missing = total as usize - parts.iter().sum::<usize>();
    for slot in by_remainder.into_iter().take(missing) {
        parts[slot] += 1;
    }
    parts
}

/// Mixes the bits of a position (the finaliser of SplitMix64).
fn scatter(position: u64) -> u64 {
    let mut bits = position;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn tuning_of(members: &[RingMember], sites: &Sites, tokens: &[(Token, NodeId)]) -> Tuning {
    let ends = tokens.iter().map(|(token, _)| token.0).collect();
    Tuning::new(ends, slots_of(members, tokens), sites, members.len())
}

fn tokens_of(members: &[RingMember], tuning: &Tuning) -> Vec<(Token, NodeId)> {
    tuning
        .arcs()
        .map(|(end, slot)| (Token(end), members[usize::from(slot)].node))
        .collect()
}
