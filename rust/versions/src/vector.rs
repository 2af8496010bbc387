//! Dots, and version vectors: sets of dots.

use std::collections::BTreeMap;
use std::fmt;

use quorate_core::ids::{NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

/// One write: the `counter`th of the replica that coordinated it. Counters start at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The coordinating replica.
    pub replica: ReplicaId,
    /// Its number there, over all keys. Never repeats.
    pub counter: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replica.node(), self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replica, self.counter)
    }
}

/// How two version vectors relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Causality {
    /// Both have seen the same.
    Equal,
    /// The other has seen all that this one has, and more.
    Before,
    /// This one has seen all that the other has, and more.
    After,
    /// Each has seen what the other has not.
    Concurrent,
}

/// Per replica, the highest counter up to which its writes of a key have been seen.
///
/// Invariant: no counter is 0 (a replica of which nothing was seen is left out), so equal sets are equal vectors.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<ReplicaId, u64>")]
pub struct VersionVector {
    counters: BTreeMap<ReplicaId, u64>,
}

impl TryFrom<BTreeMap<ReplicaId, u64>> for VersionVector {
    type Error = String;

    fn try_from(counters: BTreeMap<ReplicaId, u64>) -> Result<Self, String> {
        match counters.iter().find(|(_, counter)| **counter == 0) {
            Some((replica, _)) => Err(format!("version vector with counter 0 for {replica}")),
            None => Ok(VersionVector { counters }),
        }
    }
}

impl VersionVector {
    /// Nothing seen.
    pub fn new() -> Self {
        VersionVector::default()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// The number of replicas in it.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Approximate size in memory; at least the size on the wire.
    pub fn size(&self) -> usize {
        self.counters.len() * 2 * size_of::<Dot>()
    }

    /// The counter up to which `replica`'s writes were seen; 0 for none.
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.counters.get(&replica).copied().unwrap_or(0)
    }

    /// Whether the write was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.replica)
    }

    /// Adds a write, and with it all earlier ones of its replica.
    ///
    /// # Panics
    /// If the dot's counter is 0, which numbers no write.
    pub fn record(&mut self, dot: Dot) {
        assert!(dot.counter > 0, "{dot:?} is not a write: counters start at 1");
        let counter = self.counters.entry(dot.replica).or_insert(0);
        *counter = dot.counter.max(*counter);
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &VersionVector) {
        for dot in other.iter() {
            self.record(dot);
        }
    }

    /// Whether this one has seen all that `other` has. Every vector dominates itself.
    pub fn dominates(&self, other: &VersionVector) -> bool {
        other.iter().all(|dot| self.contains(dot))
    }

    /// How this vector relates to `other`.
    pub fn compare(&self, other: &VersionVector) -> Causality {
        match (self.dominates(other), other.dominates(self)) {
            (true, true) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (false, false) => Causality::Concurrent,
        }
    }

    /// The last write seen of each replica, in the order of replica ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> + '_ {
        self.counters
            .iter()
            .map(|(&replica, &counter)| Dot { replica, counter })
    }

    /// For display: counters by node name (`n1`), or by replica (`n1#00000000abcd`) for a node that appears
    /// more than once, because it crashed or its data directory was replaced.
    pub fn readable(&self) -> BTreeMap<String, u64> {
        let mut ids: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replica in self.counters.keys() {
            *ids.entry(replica.node()).or_insert(0) += 1;
        }
        self.iter()
            .map(|dot| {
                let node = dot.replica.node();
                let name = if ids[&node] == 1 {
                    node.to_string()
                } else {
                    dot.replica.to_string()
                };
                (name, dot.counter)
            })
            .collect()
    }
}

impl FromIterator<Dot> for VersionVector {
    /// The smallest vector that covers the dots.
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        for dot in dots {
            vector.record(dot);
        }
        vector
    }
}

impl fmt::Display for VersionVector {
    /// As [`VersionVector::readable`]: `n1: 5, n2: 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, counter)) in self.readable().iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name}: {counter}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.counters).finish()
    }
}
