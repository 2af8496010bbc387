//! The roles of quorum keyspaces behind one type, so that a shell drives all of them alike.

use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::time::Now;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::role::{Effect, Event, RoleId, Surroundings};

use crate::coordinator::Coordinator;
use crate::replica::Replica;

/// An instance of a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instance {
    /// See [`crate::coordinator`].
    Coordinator(Box<Coordinator>),
    /// See [`crate::replica`].
    Replica(Box<Replica>),
}

impl Instance {
    /// A keyspace's instances on a node. The first event of each is [`Event::Start`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace has more replicas than the topology has nodes.
    pub fn create(
        keyspace: &Keyspace,
        surroundings: &Surroundings,
    ) -> Result<[(RoleId, Instance); 2], Error> {
        Ok([
            (
                RoleId::Replica(keyspace.id),
                Instance::Replica(Box::new(Replica::new(keyspace, surroundings)?)),
            ),
            (
                RoleId::Coordinator(keyspace.id),
                Instance::Coordinator(Box::new(Coordinator::new(keyspace, surroundings)?)),
            ),
        ])
    }
}

impl Role for Instance {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match self {
            Instance::Coordinator(role) => role.handle(now, rng, event, effects),
            Instance::Replica(role) => role.handle(now, rng, event, effects),
        }
    }
}
