//! What a ring is made from, and what can be wrong with it.

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::{HashKind, Token};

/// The most tokens that a ring holds, over all members.
pub const MAX_TOKENS: usize = 1 << 16;

/// A node of the ring and where it stands. Copies of a key go to different datacenters and racks where there are any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingMember {
    /// The node.
    pub node: NodeId,
    /// What fails together with the node; a rack's name means something within its datacenter only.
    pub rack: String,
    /// The building, or the cloud region, that the rack stands in.
    pub datacenter: String,
}

impl RingMember {
    /// A member in the rack and datacenter `default`, for clusters that have no such thing.
    pub fn new(node: NodeId) -> Self {
        RingMember {
            node,
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        }
    }
}

/// How a ring is laid out. The same on every node of a cluster; the hash never changes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingSettings {
    /// Tokens per node.
    pub vnodes: u16,
    /// From keys to tokens.
    pub hash: HashKind,
}

impl Default for RingSettings {
    /// 150 tokens per node, murmur3.
    fn default() -> Self {
        RingSettings {
            vnodes: 150,
            hash: HashKind::default(),
        }
    }
}

impl RingSettings {
    /// Checks that `members` nodes make a ring with these settings.
    ///
    /// # Errors
    /// [`RingError::NoMembers`], [`RingError::NoVnodes`] or [`RingError::TooManyTokens`].
    pub fn validate(&self, members: usize) -> Result<(), RingError> {
        if members == 0 {
            return Err(RingError::NoMembers);
        }
        if self.vnodes == 0 {
            return Err(RingError::NoVnodes);
        }
        if usize::from(self.vnodes).saturating_mul(members) > MAX_TOKENS {
            return Err(RingError::TooManyTokens {
                members,
                vnodes: self.vnodes,
            });
        }
        Ok(())
    }
}

/// Why there is no such ring, or no such answer from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring of nobody.
    #[error("a ring needs at least one node: add one")]
    NoMembers,
    /// `vnodes` is 0.
    #[error("vnodes=0 leaves the nodes without a part of the ring: use 1 or more (150 is the default)")]
    NoVnodes,
    /// More than [`MAX_TOKENS`] tokens.
    #[error("{members} node(s) with vnodes={vnodes} are more than {MAX_TOKENS} tokens: lower vnodes")]
    TooManyTokens {
        /// How many nodes.
        members: usize,
        /// Tokens per node.
        vnodes: u16,
    },
    /// A node is in the list of members twice.
    #[error("node {0} is a member twice: give each node its own id")]
    DuplicateMember(NodeId),
    /// The node is not in the ring.
    #[error("node {0} is not a member of the ring: see the list of members")]
    UnknownMember(NodeId),
    /// The last member cannot be removed.
    #[error("node {0} is the ring's last member: add another before removing it")]
    LastMember(NodeId),
    /// Stored tokens: two of them are equal.
    #[error("token {0} is there twice: the stored topology is damaged, restore it")]
    DuplicateToken(Token),
    /// Stored tokens: a member has none.
    #[error("node {0} has no token: the stored topology is damaged, restore it")]
    MemberWithoutToken(NodeId),
    /// More replicas than nodes.
    #[error(
        "{replicas} replica(s) on {nodes} node(s): lower the replicas or add nodes (at least 1, at most one per node)"
    )]
    BadReplicas {
        /// How many copies were asked for.
        replicas: u8,
        /// How many nodes the ring has.
        nodes: usize,
    },
    /// Two rings that hash differently cannot be compared: every key is elsewhere.
    #[error("one ring hashes with {old}, the other with {new}: a ring keeps its hash for life")]
    HashMismatch {
        /// Of the ring as it was.
        old: HashKind,
        /// Of the ring as it shall be.
        new: HashKind,
    },
    /// A name that is none of the hashes.
    #[error("hash {0:?}: use murmur3, md5 or xxh3")]
    UnknownHash(String),
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Error {
        Error::InvalidArgument(error.to_string())
    }
}
