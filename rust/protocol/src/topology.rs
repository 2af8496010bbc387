//! The topology: the members and their tokens. Its `generation` increases with each change.

use quorate_core::error::Error;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_ring::{Ring, RingMember, RingSettings};
use serde::{Deserialize, Serialize};

/// The maximum number of voters of the control plane; the other members are learners.
pub const MAX_VOTERS: usize = 7;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its number, never reused.
    pub id: NodeId,
    /// Its address for peers, `host:port`.
    pub peer_address: String,
    /// Its address for clients, `host:port`.
    pub client_address: String,
    /// Its address of `/metrics`, `host:port`.
    pub http_address: String,
    /// For placement over racks.
    pub rack: String,
    /// For placement over datacenters.
    pub datacenter: String,
}

impl Member {
    /// The size of its addresses and location, in bytes.
    pub fn size(&self) -> usize {
        let Member {
            id: _,
            peer_address,
            client_address,
            http_address,
            rack,
            datacenter,
        } = self;
        [peer_address, client_address, http_address, rack, datacenter]
            .iter()
            .map(|text| text.len())
            .sum()
    }

    /// Whether both have the same addresses.
    pub fn has_addresses_of(&self, other: &Member) -> bool {
        self.peer_address == other.peer_address
            && self.client_address == other.client_address
            && self.http_address == other.http_address
    }
}

/// The members and the settings that every node must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Topology {
    /// The cluster.
    pub cluster: ClusterId,
    /// Increases with each change.
    pub generation: u64,
    /// Ascending by id, ids distinct.
    pub members: Vec<Member>,
    /// How keys are hashed to tokens and tokens are assigned to members.
    pub ring: RingSettings,
}

impl Topology {
    /// About its size in memory besides the struct, in bytes; no less than on the wire.
    pub fn size(&self) -> usize {
        self.members.iter().map(Member::size).sum::<usize>() + size_of_val(&self.members[..])
    }

    /// Checks and sorts the members.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no members or for two members with the same id.
    pub fn new(
        cluster: ClusterId,
        generation: u64,
        mut members: Vec<Member>,
        ring: RingSettings,
    ) -> Result<Self, Error> {
        members.sort();
        if members.is_empty() {
            return Err(Error::invalid("a cluster needs at least one node: name one"));
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::invalid(format!(
                "node {} is listed twice: give each node its own id",
                pair[0].id
            )));
        }
        Ok(Topology {
            cluster,
            generation,
            members,
            ring,
        })
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The ids of all members, ascending.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id)
    }

    /// The ring of these members: the same on every node.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for invalid settings of the ring.
    pub fn build_ring(&self) -> Result<Ring, Error> {
        let members: Vec<RingMember> = self
            .members
            .iter()
            .map(|member| RingMember {
                node: member.id,
                rack: member.rack.clone(),
                datacenter: member.datacenter.clone(),
            })
            .collect();
        Ring::build(&self.ring, &members).map_err(|error| Error::invalid(error.to_string()))
    }
}
