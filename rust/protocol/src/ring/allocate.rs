//! Where a new node's tokens go, and what happens when a node leaves.
//!
//! The first node's tokens are evenly spaced. Each further one splits arcs of the others, one token in each: every
//! other node gives what it has above the new mean, by as many of the new tokens as its part of the gift requires,
//! in its longest arcs. Then the new tokens, and only they, are shifted within the arcs they split until primaries and
//! stored copies are balanced (see [`tune`](super::tune)). 150 free positions against two equations per node: there is
//! nearly always an exact solution.
//!
//! When a node leaves, its arcs go to whoever comes next, which is nearly fair, since its arcs lay among those of all
//! the others. What is missing is made good by shifting single tokens of the others, the most useful one first, and no
//! more than needed.

use super::preference::{Sites, Slot};
use super::token::SPACE;
use super::tune::Tuning;
use super::{RingMember, Token, slots_of};
use crate::ids::NodeId;

/// How often each new token is reconsidered.
const ROUNDS: usize = 24;

/// A split leaves at least this part of the arc on both sides.
const LEAST_PIECE: i128 = 16;

/// After a removal tokens are shifted until every node's share is within this part of the mean: 2%.
const TOLERANCE: i128 = 50;

/// The tokens of a ring that `node`, one of `members`, joins. `tokens` are those of the others, rising.
pub(super) fn add(
    vnodes: u16,
    members: &[RingMember],
    tokens: &[(Token, NodeId)],
    node: NodeId,
) -> Vec<(Token, NodeId)> {
    if tokens.is_empty() {
        let even = |i: u128| (Token((i * SPACE / u128::from(vnodes)) as u64), node);
        return (0..u128::from(vnodes)).map(even).collect();
    }
    let mut all = tokens.to_vec();
    all.extend(splits(vnodes, members, tokens).map(|token| (token, node)));
    all.sort_unstable();

    let mut tuning = tuning_of(members, &all);
    let new: Vec<usize> = (0..all.len()).filter(|arc| all[*arc].1 == node).collect();
    let rooms: Vec<i128> = new
        .iter()
        .map(|arc| (tuning.size(*arc) + tuning.size((arc + 1) % all.len())) / LEAST_PIECE)
        .collect();
    for _ in 0..ROUNDS {
        for (arc, room) in new.iter().zip(&rooms) {
            if let Some(step) = tuning.best_step(*arc, *room) {
                tuning.take(step);
            }
        }
    }
    replace_ends(&mut all, tuning);
    all
}

/// Shifts as few of `tokens` as it takes to have every node's shares within the tolerance, or as near to that as the
/// racks allow.
pub(super) fn rebalance(members: &[RingMember], tokens: &mut [(Token, NodeId)]) {
    let mut tuning = tuning_of(members, tokens);
    let room = SPACE as i128 / tokens.len() as i128 / LEAST_PIECE;
    for _ in 0..tokens.len() {
        if tuning.balanced_within(TOLERANCE) {
            break;
        }
        let best = (0..tuning.arcs())
            .filter_map(|arc| tuning.best_step(arc, room))
            .max_by_key(|step| step.gain);
        match best {
            Some(step) if step.gain > 0 => tuning.take(step),
            _ => break,
        }
    }
    replace_ends(tokens, tuning);
}

/// New tokens inside arcs of `tokens`, such that every owner gives what it has above the mean of `members`.
fn splits(vnodes: u16, members: &[RingMember], tokens: &[(Token, NodeId)]) -> impl Iterator<Item = Token> {
    let mean = SPACE / members.len() as u128;
    let mut arcs_of = vec![Vec::new(); members.len()];
    let owners = slots_of(members, tokens);
    let mut start = tokens[tokens.len() - 1].0;
    for ((end, _), owner) in tokens.iter().zip(owners) {
        let size = match end.0.wrapping_sub(start.0) {
            0 => SPACE,
            size => u128::from(size),
        };
        arcs_of[usize::from(owner)].push(Arc { start: start.0, size });
        start = *end;
    }
    let excess: Vec<u128> = arcs_of
        .iter()
        .map(|arcs| arcs.iter().map(|arc| arc.size).sum::<u128>().saturating_sub(mean))
        .collect();
    let counts = apportion(u128::from(vnodes), &excess);

    let mut new = Vec::with_capacity(usize::from(vnodes));
    for ((mut arcs, excess), count) in arcs_of.into_iter().zip(excess).zip(counts) {
        // Longest first, in steps of an eighth of the longest; among equals in an order that has nothing to do with
        // their places on the circle.
        let longest = arcs.iter().map(|arc| arc.size).max().unwrap_or(1);
        arcs.sort_unstable_by_key(|arc| (8 - 8 * arc.size / longest, scatter(arc.start), arc.start));
        arcs.truncate(count);
        let given: u128 = arcs.iter().map(|arc| arc.size).sum();
        for arc in arcs {
            let piece = arc.size * excess / given;
            let most = arc.size - arc.size / LEAST_PIECE as u128;
            new.push(Token(arc.start.wrapping_add(piece.clamp(1, most) as u64)));
        }
    }
    new.into_iter()
}

#[derive(Clone, Copy)]
struct Arc {
    start: u64,
    size: u128,
}

/// Divides `total` in proportion to `weights`, in whole numbers (largest remainders first).
fn apportion(total: u128, weights: &[u128]) -> Vec<usize> {
    let sum = weights.iter().sum::<u128>().max(1);
    let mut parts: Vec<usize> = weights
        .iter()
        .map(|weight| (total * weight / sum) as usize)
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|slot| (std::cmp::Reverse(total * weights[*slot] % sum), *slot));
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

fn tuning_of(members: &[RingMember], tokens: &[(Token, NodeId)]) -> Tuning {
    let ends = tokens.iter().map(|(token, _)| token.0).collect();
    let owners: Vec<Slot> = slots_of(members, tokens);
    Tuning::new(ends, owners, &Sites::of(members), members.len())
}

fn replace_ends(tokens: &mut [(Token, NodeId)], tuning: Tuning) {
    for ((token, _), end) in tokens.iter_mut().zip(tuning.into_ends()) {
        *token = Token(end);
    }
}
