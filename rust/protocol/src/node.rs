//! The node role: decides which role instances exist on a node.
//!
//! The wiring of a node is itself a pure state machine, so that the simulator wires its nodes exactly as real ones
//! are. The control role always exists; every known quorum keyspace has a coordinator and a replica, every consensus
//! keyspace a forwarder and a server of each group of which this node is a member. Shells create and end instances until
//! they match the last [`Effect::Reconcile`], before they perform the effects that follow it; so when the control role
//! receives [`Message::Defined`], the keyspaces are being served.
//!
//! A change of a keyspace's levels replaces no instance: a replica must not lose its writes in flight. The node role
//! sends the change to the keyspace's coordinator.

use std::collections::BTreeMap;

use quorate_core::contract::{Rng, Role};
use quorate_core::ids::KeyspaceId;
use quorate_core::time::Now;

use crate::keyspace::{Keyspace, Mode};
use crate::local::LocalMessage;
use crate::message::{Header, Message};
use crate::role::{Address, Effect, Event, RoleId, Spec, Surroundings};

/// The node role. Ignores everything but [`Event::Start`] and [`LocalMessage::Keyspaces`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRole {
    surroundings: Surroundings,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
}

impl NodeRole {
    /// A node without keyspaces.
    pub fn new(surroundings: &Surroundings) -> Self {
        NodeRole {
            surroundings: surroundings.clone(),
            keyspaces: BTreeMap::new(),
        }
    }

    /// The keyspaces that are served.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.keyspaces.values()
    }

    fn reconcile(&self) -> Effect {
        let keyspaces = self
            .keyspaces
            .values()
            .cloned()
            .map(|keyspace| match keyspace.settings.mode {
                Mode::Quorum => Spec::Quorum(keyspace),
                Mode::Consensus => Spec::Consensus(keyspace),
            });
        Effect::Reconcile(std::iter::once(Spec::Control).chain(keyspaces).collect())
    }

    fn own(&self, role: RoleId) -> Address {
        Address {
            node: self.surroundings.me(),
            role,
        }
    }

    /// Serves these keyspaces, and no others.
    fn serve(&mut self, header: Header, keyspaces: Vec<Keyspace>, effects: &mut Vec<Effect>) {
        let keyspaces = keyspaces.into_iter().map(|keyspace| (keyspace.id, keyspace));
        let before = std::mem::replace(&mut self.keyspaces, keyspaces.collect());
        if self.keyspaces != before {
            effects.push(self.reconcile());
        }
        for (id, keyspace) in &self.keyspaces {
            if keyspace.settings.mode == Mode::Quorum && before.get(id).is_some_and(|known| known != keyspace)
            {
                effects.push(Effect::SendLocal {
                    to: RoleId::Coordinator(*id),
                    header,
                    message: LocalMessage::Keyspaces(vec![keyspace.clone()]),
                });
            }
        }
        effects.push(Effect::Send {
            to: self.own(RoleId::Control),
            header,
            message: Message::Defined,
        });
    }
}

impl Role for NodeRole {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, _now: Now, _rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => effects.push(self.reconcile()),
            Event::Local {
                from: RoleId::Control,
                header,
                message: LocalMessage::Keyspaces(keyspaces),
            } => self.serve(header, keyspaces, effects),
            _ => {}
        }
    }
}
