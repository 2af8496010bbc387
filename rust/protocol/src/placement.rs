//! Placement of keys: the topology, its ring, and the preference lists for one replica count.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_ring::{ReplicaTable, Ring, Token};

use crate::topology::Topology;

/// A topology with its ring. Cheap to clone; equal when the topologies are.
#[derive(Clone, Debug)]
pub struct Placement {
    topology: Arc<Topology>,
    ring: Arc<Ring>,
}

impl Placement {
    /// Builds the ring of a topology.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for invalid settings of the ring.
    pub fn new(topology: Topology) -> Result<Self, Error> {
        let ring = topology.build_ring()?;
        Ok(Placement {
            topology: Arc::new(topology),
            ring: Arc::new(ring),
        })
    }

    /// The members.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The preference lists of a keyspace with `replicas` replicas.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the cluster has fewer nodes.
    pub fn preference(&self, replicas: u8) -> Result<Preference, Error> {
        let table = self
            .ring
            .replicas(replicas)
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Preference {
            placement: self.clone(),
            table: Arc::new(table),
        })
    }
}

impl PartialEq for Placement {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.topology, &other.topology) || self.topology == other.topology
    }
}

impl Eq for Placement {}

impl Hash for Placement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.topology.generation.hash(state);
    }
}

/// The preference lists of one keyspace: for each key, its replicas in the order in which they are preferred.
#[derive(Clone, Debug)]
pub struct Preference {
    placement: Placement,
    table: Arc<ReplicaTable>,
}

impl Preference {
    /// The token of a key: a function of its partition key alone, so that a partition stays together.
    pub fn token(&self, key: &Key) -> Token {
        self.placement.topology.ring.hash.token_of(key.partition())
    }

    /// The replicas of a key, the most preferred first.
    pub fn of(&self, key: &Key) -> &[NodeId] {
        self.table.lookup(self.token(key))
    }

    /// Every distinct preference list of the ring.
    pub fn lists(&self) -> impl Iterator<Item = &[NodeId]> {
        self.table.sets()
    }

    /// Its topology.
    pub fn topology(&self) -> &Topology {
        &self.placement.topology
    }
}

impl PartialEq for Preference {
    fn eq(&self, other: &Self) -> bool {
        self.table.replicas() == other.table.replicas() && self.placement == other.placement
    }
}

impl Eq for Preference {}

impl Hash for Preference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.placement.hash(state);
    }
}
