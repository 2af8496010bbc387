//! The settings of a ring, and its errors.

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::{HashKind, Token};

/// The maximum number of tokens of a ring, over all members.
pub const MAX_TOKENS: usize = 1 << 16;

/// A node of the ring and its location. Copies of a key go to different datacenters and racks if there are
/// any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingMember {
    /// The node.
    pub node: NodeId,
    /// Its failure domain; the rack's name is local to its datacenter.
    pub rack: String,
    /// The building, or the cloud region, of the rack.
    pub datacenter: String,
}

impl RingMember {
    /// A member in the rack and datacenter `default`, for clusters without racks.
    pub fn new(node: NodeId) -> Self {
        RingMember {
            node,
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        }
    }
}

/// The layout of a ring. The same on every node of a cluster; the hash never changes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingSettings {
    /// Tokens per node.
    pub vnodes: u16,
    /// The hash from keys to tokens.
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

/// Why a ring, or a result of it, does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The ring has no members.
    #[error("a ring needs at least one node: add one")]
    NoMembers,
    /// `vnodes` is 0.
    #[error("vnodes=0 gives the nodes no part of the ring: use 1 or more (150 is the default)")]
    NoVnodes,
    /// More than [`MAX_TOKENS`] tokens.
    #[error("{members} node(s) with vnodes={vnodes} are more than {MAX_TOKENS} tokens: lower vnodes")]
    TooManyTokens {
        /// The number of nodes.
        members: usize,
        /// Tokens per node.
        vnodes: u16,
    },
    /// A node is listed twice.
    #[error("node {0} is a member twice: give each node its own id")]
    DuplicateMember(NodeId),
    /// The node is not in the ring.
    #[error("node {0} is not a member of the ring: see the list of members")]
    UnknownMember(NodeId),
    /// The last member cannot be removed.
    #[error("node {0} is the ring's last member: add another before removing it")]
    LastMember(NodeId),
    /// Stored tokens: two of them are equal.
    #[error("token {0} occurs twice: the stored topology is damaged, restore it")]
    DuplicateToken(Token),
    /// Stored tokens: a member has none.
    #[error("node {0} has no token: the stored topology is damaged, restore it")]
    MemberWithoutToken(NodeId),
    /// More replicas than nodes.
    #[error(
        "{replicas} replica(s) on {nodes} node(s): lower the replicas or add nodes (at least 1, at most one per node)"
    )]
    BadReplicas {
        /// The number of copies.
        replicas: u8,
        /// The number of nodes of the ring.
        nodes: usize,
    },
    /// Two rings with different hashes cannot be compared: every key is elsewhere.
    #[error("one ring hashes with {old}, the other with {new}: the hash of a ring never changes")]
    HashMismatch {
        /// The hash of the old ring.
        old: HashKind,
        /// The hash of the new ring.
        new: HashKind,
    },
    /// An unknown hash.
    #[error("hash {0:?}: use murmur3, md5 or xxh3")]
    UnknownHash(String),
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Error {
        Error::InvalidArgument(error.to_string())
    }
}
