//! Every role of the data plane behind one type, for shells that drive them all alike.

use crate::catalog::Catalog;
use crate::error::Error;
use crate::node::NodeRole;
use crate::quorum::coordinator::Coordinator;
use crate::quorum::replica::Replica;
use crate::role::{Effect, Event, Rng, Role, RoleId, Spec, Surroundings};
use crate::time::Now;

/// A role instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instance {
    /// See [`crate::node`].
    Node(NodeRole),
    /// See [`crate::catalog`].
    Catalog(Catalog),
    /// See [`crate::quorum::coordinator`].
    Coordinator(Coordinator),
    /// See [`crate::quorum::replica`].
    Replica(Replica),
}

impl Instance {
    /// The node role, which every node begins with.
    pub fn node(surroundings: &Surroundings) -> Self {
        Instance::Node(NodeRole::new(surroundings))
    }

    /// The instances that a spec stands for. Each is given [`Event::Start`] first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace does not fit the topology (more replicas than nodes).
    pub fn create(spec: &Spec, surroundings: &Surroundings) -> Result<Vec<(RoleId, Instance)>, Error> {
        Ok(match spec {
            Spec::Catalog => vec![(RoleId::Catalog, Instance::Catalog(Catalog::new(surroundings)))],
            Spec::Quorum(keyspace) => vec![
                (
                    RoleId::Replica(keyspace.id),
                    Instance::Replica(Replica::new(keyspace, surroundings)?),
                ),
                (
                    RoleId::Coordinator(keyspace.id),
                    Instance::Coordinator(Coordinator::new(keyspace, surroundings)?),
                ),
            ],
        })
    }
}

impl Role for Instance {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match self {
            Instance::Node(role) => role.handle(now, rng, event, effects),
            Instance::Catalog(role) => role.handle(now, rng, event, effects),
            Instance::Coordinator(role) => role.handle(now, rng, event, effects),
            Instance::Replica(role) => role.handle(now, rng, event, effects),
        }
    }
}
