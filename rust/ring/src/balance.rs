//! How evenly a ring divides its keys: in theory by the lengths of the arcs, and in practice by counting
//! keys.
//!
//! Both count **primaries** (the node comes first on the key's preference list) and **stored copies** (it is anywhere
//! on the list), since load follows the second. With racks of unequal size stored copies cannot be balanced: the only
//! node of a rack stores one copy of everything when there are as many copies as racks.

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::token::share;
use super::{Ring, RingError, Token};

/// A node's share of the circle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeBalance {
    /// The node.
    pub node: NodeId,
    /// The number of its tokens.
    pub vnodes: u32,
    /// The part of the circle that it owns. Over all nodes: 1.
    pub primary: f64,
    /// The part of the circle of which it stores a copy. Over all nodes: the number of replicas.
    pub stored: f64,
}

/// A node's share of some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKeys {
    /// The node.
    pub node: NodeId,
    /// The number of its tokens.
    pub vnodes: u32,
    /// The number of keys whose primary it is.
    pub primary: u64,
    /// The number of keys of which it stores a copy.
    pub stored: u64,
}

/// A node and its load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The node.
    pub node: NodeId,
    /// A part of the circle, or a number of keys.
    pub amount: f64,
}

/// Statistics over the nodes of a ring. Amounts are parts of the circle, or numbers of keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The perfectly even amount per node.
    pub mean: f64,
    /// Of the population, not of a sample.
    pub standard_deviation: f64,
    /// The standard deviation in percent of the mean; 0 when there is nothing to divide.
    pub sd_percent: f64,
    /// 100 less `sd_percent`, at least 0.
    pub score: f64,
    /// The node with the highest load (of equals the one with the lowest id).
    pub most_loaded: Load,
    /// The node with the lowest load (of equals the one with the lowest id).
    pub least_loaded: Load,
}

/// How evenly a ring divides the circle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceReport {
    /// The number of copies of each key.
    pub replicas: u8,
    /// In the order of their ids.
    pub nodes: Vec<NodeBalance>,
    /// Of primary ownership.
    pub primary: Spread,
    /// Of the stored copies.
    pub stored: Spread,
    /// The expected `primary.sd_percent` of random tokens: see [`random_sd_percent`].
    pub random_sd_percent: f64,
}

/// How evenly a ring divides some actual keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBalance {
    /// The number of copies of each key.
    pub replicas: u8,
    /// The number of keys.
    pub keys: u64,
    /// In the order of their ids.
    pub nodes: Vec<NodeKeys>,
    /// Of primary ownership.
    pub primary: Spread,
    /// Of the stored copies.
    pub stored: Spread,
}

/// How evenly `ring` divides the circle, with `replicas` copies of each key.
///
/// # Errors
/// [`RingError::BadReplicas`].
pub fn balance(ring: &Ring, replicas: u8) -> Result<BalanceReport, RingError> {
    let table = ring.replicas(replicas)?;
    let mut tally = Tally::new(ring);
    for (range, list) in table.arcs() {
        tally.count(list, range.size());
    }
    let nodes: Vec<NodeBalance> = tally
        .rows()
        .map(|(node, vnodes, primary, stored)| NodeBalance {
            node,
            vnodes,
            primary: share(primary),
            stored: share(stored),
        })
        .collect();
    Ok(BalanceReport {
        replicas,
        primary: Spread::over(nodes.iter().map(|each| (each.node, each.primary))),
        stored: Spread::over(nodes.iter().map(|each| (each.node, each.stored))),
        random_sd_percent: random_sd_percent(nodes.len(), ring.settings().vnodes),
        nodes,
    })
}

/// How evenly `ring` divides the keys with these tokens, with `replicas` copies of each.
///
/// # Errors
/// [`RingError::BadReplicas`].
pub fn balance_of_keys(
    ring: &Ring,
    replicas: u8,
    tokens: impl IntoIterator<Item = Token>,
) -> Result<KeyBalance, RingError> {
    let table = ring.replicas(replicas)?;
    let mut tally = Tally::new(ring);
    let mut keys = 0;
    for token in tokens {
        tally.count(table.lookup(token), 1);
        keys += 1;
    }
    let nodes: Vec<NodeKeys> = tally
        .rows()
        .map(|(node, vnodes, primary, stored)| NodeKeys {
            node,
            vnodes,
            primary: primary as u64,
            stored: stored as u64,
        })
        .collect();
    Ok(KeyBalance {
        replicas,
        keys,
        primary: Spread::over(nodes.iter().map(|each| (each.node, each.primary as f64))),
        stored: Spread::over(nodes.iter().map(|each| (each.node, each.stored as f64))),
        nodes,
    })
}

/// The standard deviation of primary ownership in percent of the mean when `nodes` nodes have `vnodes` random tokens
/// each: `100·sqrt((N-1)/(N·V+1))`. (Each share is then beta distributed, with V and (N-1)·V as its parameters.)
pub fn random_sd_percent(nodes: usize, vnodes: u16) -> f64 {
    let (n, v) = (nodes as f64, f64::from(vnodes));
    100.0 * ((n - 1.0).max(0.0) / (n * v + 1.0)).sqrt()
}

/// Counts per member of a ring.
struct Tally<'a> {
    ring: &'a Ring,
    vnodes: Vec<u32>,
    primary: Vec<u128>,
    stored: Vec<u128>,
}

impl<'a> Tally<'a> {
    fn new(ring: &'a Ring) -> Self {
        let members = ring.members().len();
        let mut vnodes = vec![0; members];
        for slot in ring.owner_slots() {
            vnodes[usize::from(slot)] += 1;
        }
        Tally {
            ring,
            vnodes,
            primary: vec![0; members],
            stored: vec![0; members],
        }
    }

    fn count(&mut self, list: &[NodeId], amount: u128) {
        for (place, node) in list.iter().enumerate() {
            let slot = self.ring.slot_of(*node);
            self.stored[slot] += amount;
            if place == 0 {
                self.primary[slot] += amount;
            }
        }
    }

    /// Node, vnodes, primary, stored.
    fn rows(&self) -> impl Iterator<Item = (NodeId, u32, u128, u128)> {
        let nodes = self.ring.members().iter().map(|member| member.node);
        nodes
            .enumerate()
            .map(|(slot, node)| (node, self.vnodes[slot], self.primary[slot], self.stored[slot]))
    }
}

impl Spread {
    /// Over at least one node: a ring has one.
    fn over(loads: impl Iterator<Item = (NodeId, f64)>) -> Spread {
        let loads: Vec<Load> = loads.map(|(node, amount)| Load { node, amount }).collect();
        let count = loads.len() as f64;
        let mean = loads.iter().map(|load| load.amount).sum::<f64>() / count;
        let variance = loads.iter().map(|load| (load.amount - mean).powi(2)).sum::<f64>() / count;
        let standard_deviation = variance.sqrt();
        let sd_percent = if mean > 0.0 {
            100.0 * standard_deviation / mean
        } else {
            0.0
        };
        let pick = |better: fn(f64, f64) -> bool| {
            loads.iter().skip(1).fold(loads[0], |best, load| {
                if better(load.amount, best.amount) {
                    *load
                } else {
                    best
                }
            })
        };
        Spread {
            mean,
            standard_deviation,
            sd_percent,
            score: (100.0 - sd_percent).max(0.0),
            most_loaded: pick(|amount, best| amount > best),
            least_loaded: pick(|amount, best| amount < best),
        }
    }
}
