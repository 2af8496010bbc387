//! The roles backed by Raft groups, as one type.

use quorate_core::contract::{Rng, Role};
use quorate_core::time::Now;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::role::{Effect, Event, RoleId, Surroundings};

use crate::control::Control;
use crate::shard::Shard;
use crate::shard::forwarder::Forwarder;

/// An instance of a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instance {
    /// See [`crate::control`].
    Control(Box<Control>),
    /// See [`crate::shard::forwarder`].
    Forwarder(Forwarder),
    /// See [`crate::shard`].
    Shard(Box<Shard>),
}

impl Instance {
    /// A node's control role. Its first event must be [`Event::Start`].
    pub fn control(surroundings: &Surroundings) -> (RoleId, Instance) {
        (
            RoleId::Control,
            Instance::Control(Box::new(Control::new(surroundings))),
        )
    }

    /// A keyspace's instances on a node: the servers of its groups that the node is a member of, and the
    /// forwarder. The first event of each must be [`Event::Start`].
    pub fn create(keyspace: &Keyspace, surroundings: &Surroundings) -> Vec<(RoleId, Instance)> {
        let forwarder = Forwarder::new(keyspace, surroundings);
        let shards = keyspace.groups.iter().filter_map(|group| {
            let shard = Shard::new(keyspace, group.id, surroundings)?;
            Some((RoleId::Shard(group.id), Instance::Shard(Box::new(shard))))
        });
        shards
            .chain([(RoleId::Forwarder(keyspace.id), Instance::Forwarder(forwarder))])
            .collect()
    }
}

impl Role for Instance {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match self {
            Instance::Control(role) => role.handle(now, rng, event, effects),
            Instance::Forwarder(role) => role.handle(now, rng, event, effects),
            Instance::Shard(role) => role.handle(now, rng, event, effects),
        }
    }
}
