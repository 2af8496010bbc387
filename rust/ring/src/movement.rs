//! The data movement from one ring to another.

use std::collections::BTreeMap;

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::token::share;
use super::{ReplicaTable, Ring, RingError, Token, TokenRange};

/// A node that must receive a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Move {
    /// The range.
    pub range: TokenRange,
    /// The nodes that store it in the old ring, most preferred first. They may include a node that has left
    /// the ring.
    pub from: Vec<NodeId>,
    /// The node that stores it in the new ring but not in the old one.
    pub to: NodeId,
}

/// A node that no longer needs to store a range, once all moves of that range are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The range.
    pub range: TokenRange,
    /// The node that stores it in the old ring but not in the new one.
    pub node: NodeId,
}

/// All changes between two rings. For every token, the nodes of the new preference list are those of the old
/// one and the `to` of the moves that contain it, without the nodes of the releases that contain it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Movement {
    /// In the order of the ranges' ends. No two with the same `to` overlap.
    pub moves: Vec<Move>,
    /// In the order of the ranges' ends. No two of the same node overlap.
    pub releases: Vec<Release>,
    /// The number of copies of each key in the new ring.
    pub replicas: u8,
}

impl Movement {
    /// The part of all the copies in the new ring that is copied to a node that did not have it: 0 to 1.
    pub fn moved_share(&self) -> f64 {
        if self.replicas == 0 {
            return 0.0;
        }
        let moved: u128 = self.moves.iter().map(|each| each.range.size()).sum();
        share(moved) / f64::from(self.replicas)
    }
}

/// The movement from `old` to `new`, with `replicas` copies of each key in both.
///
/// # Errors
/// [`RingError::BadReplicas`] if a ring has too few nodes; [`RingError::HashMismatch`].
pub fn movement(old: &Ring, new: &Ring, replicas: u8) -> Result<Movement, RingError> {
    let (from, to) = (old.settings().hash, new.settings().hash);
    if from != to {
        return Err(RingError::HashMismatch { old: from, new: to });
    }
    Ok(between(&old.replicas(replicas)?, &new.replicas(replicas)?))
}

/// The movement between two tables of rings with the same hash; the number of copies may differ too.
pub fn between(old: &ReplicaTable, new: &ReplicaTable) -> Movement {
    // Both tables have one list each between adjacent ends of either.
    let mut ends: Vec<Token> = old.arcs().chain(new.arcs()).map(|(range, _)| range.end).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut movement = Movement {
        replicas: new.replicas(),
        ..Movement::default()
    };
    let mut last_move: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut last_release: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut start = ends[ends.len() - 1];
    for end in ends {
        let range = TokenRange { start, end };
        let (before, after) = (old.lookup(end), new.lookup(end));
        for to in after.iter().filter(|node| !before.contains(node)) {
            let adjacent = last_move
                .get(to)
                .map(|index| &mut movement.moves[*index])
                .filter(|last| last.range.end == start && last.from == before);
            match adjacent {
                Some(last) => last.range.end = end,
                None => {
                    last_move.insert(*to, movement.moves.len());
                    movement.moves.push(Move {
                        range,
                        from: before.to_vec(),
                        to: *to,
                    });
                }
            }
        }
        for node in before.iter().filter(|node| !after.contains(node)) {
            let adjacent = last_release
                .get(node)
                .map(|index| &mut movement.releases[*index])
                .filter(|last| last.range.end == start);
            match adjacent {
                Some(last) => last.range.end = end,
                None => {
                    last_release.insert(*node, movement.releases.len());
                    movement.releases.push(Release { range, node: *node });
                }
            }
        }
        start = end;
    }
    movement.moves.sort_by_key(|each| (each.range.end, each.to));
    movement.releases.sort_by_key(|each| (each.range.end, each.node));
    movement
}
