//! The node role: decides which role instances exist on a node.
//!
//! The wiring of a node is itself a pure state machine, so that the simulator wires its nodes exactly as real ones
//! are. Today's rule is short: the catalog always exists, and every keyspace that the catalog has durably has a
//! coordinator and a replica. Shells create and end instances until they match the last
//! [`Effect::Reconcile`], before they perform the effects that follow it; so when the catalog
//! reads [`Message::Defined`], the keyspace is being served.

use std::collections::BTreeMap;

use crate::ids::KeyspaceId;
use crate::keyspace::Keyspace;
use crate::message::Message;
use crate::role::{Address, Effect, Event, Rng, Role, RoleId, Spec, Surroundings};
use crate::time::Now;

/// The node role. Ignores everything but [`Event::Start`] and [`Message::KeyspaceKnown`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRole {
    surroundings: Surroundings,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
}

impl NodeRole {
    /// A node that knows no keyspace yet.
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
        let quorum = self.keyspaces.values().cloned().map(Spec::Quorum);
        Effect::Reconcile(std::iter::once(Spec::Catalog).chain(quorum).collect())
    }
}

impl Role for NodeRole {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, _now: Now, _rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => effects.push(self.reconcile()),
            Event::Message {
                header,
                message: Message::KeyspaceKnown(keyspace),
                ..
            } => {
                if self.keyspaces.insert(keyspace.id, keyspace).is_none() {
                    effects.push(self.reconcile());
                }
                effects.push(Effect::Send {
                    to: Address {
                        node: self.surroundings.me(),
                        role: RoleId::Catalog,
                    },
                    header,
                    message: Message::Defined,
                });
            }
            _ => {}
        }
    }
}
