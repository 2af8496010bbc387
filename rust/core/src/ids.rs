//! Identities. Each is a newtype, so that a node cannot be mistaken for a replica or a keyspace.
//!
//! * A **node** is a member of the topology, numbered once and never renumbered: `NodeId(1)` is shown as `n1`.
//! * A **replica** id is the node's number and 48 random bits. One is drawn when a data directory is created
//!   and identifies that directory permanently: peers reject a node that returns with another one. The dots
//!   of version vectors, `(replica, counter)`, carry ids that are drawn more often: whenever a node may have
//!   forgotten a dot that it issued, such as after a crash. A number under an id then always means
//!   "everything up to here".
//! * A **boot** is one run of the node's process. It belongs to sessions only.
//! * A **cluster** id keeps the nodes and data directories of two clusters apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A member of the topology. Shown and parsed as `n1`, `n2`, …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix('n')
            .and_then(|digits| digits.parse::<u16>().ok())
            .filter(|number| *number > 0)
            .map(NodeId)
            .ok_or_else(|| format!("{text:?} is not a node id: write n1 to n65535"))
    }
}

/// A data directory of a node, or the node's memory of its dots: the node's number in the upper 16 bits, 48
/// random bits below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica id of `node` with the random bits `incarnation` (only its lower 48 bits count).
    pub fn new(node: NodeId, incarnation: u64) -> Self {
        ReplicaId(u64::from(node.0) << 48 | incarnation & 0xffff_ffff_ffff)
    }

    /// Its node.
    pub fn node(self) -> NodeId {
        NodeId((self.0 >> 48) as u16)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:012x}", self.node(), self.0 & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of a node's process: random, drawn at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// Distinguishes clusters: 128 random bits, or the hash of a name given by an operator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(#[serde(with = "crate::hex")] pub u128);

impl ClusterId {
    /// The id of the cluster with this name.
    pub fn from_name(name: &str) -> Self {
        ClusterId(xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A keyspace, numbered at its creation and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyspaceId(pub u32);

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}
