//! Creations: the first node decides and drives them, the others forward.

use std::collections::BTreeSet;

use super::definitions::Waiter;
use super::{Catalog, Origin, TIMER, exists};
use crate::api::{Request, Response};
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId};
use crate::keyspace::{Keyspace, KeyspaceSettings};
use crate::message::Message;
use crate::role::{Effect, RoleId};
use crate::time::{Instant, Now};

/// A creation that the first node drives, or one that another node has forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Exchange {
    origin: Origin,
    deadline: Instant,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Creation {
        keyspace: Keyspace,
        /// Whether nobody has asked for it before.
        created: bool,
        /// Who has it durably and serves it.
        defined: BTreeSet<NodeId>,
    },
    Forwarded {
        to: NodeId,
    },
}

impl Catalog {
    pub(super) fn create(
        &mut self,
        origin: Origin,
        deadline: Instant,
        settings: KeyspaceSettings,
        effects: &mut Vec<Effect>,
    ) {
        let members = self.members().count();
        if let Err(error) = settings.validate(members) {
            return self.answer(origin, Err(error), effects);
        }
        let existing = self.named(&settings.name).cloned();
        if let Some(existing) = &existing
            && existing.settings != settings
        {
            return self.answer(origin, Err(exists(existing)), effects);
        }
        let alive = self
            .members()
            .filter(|node| self.surroundings.alive.contains(node))
            .count();
        if alive < members {
            let result = match existing.filter(|keyspace| self.keyspaces.contains_key(&keyspace.id)) {
                Some(keyspace) => Ok(Response::Keyspace {
                    keyspace,
                    created: false,
                }),
                None => Err(Error::Unavailable {
                    required: members as u8,
                    alive: alive as u8,
                }),
            };
            return self.answer(origin, result, effects);
        }
        match self.first() {
            first if first == self.me() => self.decide(origin, deadline, settings, existing, effects),
            first => {
                let kind = Kind::Forwarded { to: first };
                let exchange = self.begin(origin, deadline, kind, effects);
                let message = Message::Forward(Request::CreateKeyspace(settings));
                self.send((first, RoleId::Catalog), (exchange, deadline), message, effects);
            }
        }
    }

    /// The keyspace with this name that is durable here or on its way to be.
    fn named(&self, name: &str) -> Option<&Keyspace> {
        let pending = self.pending.values().map(|pending| &pending.keyspace);
        let mut all = self.keyspaces.values().chain(pending);
        all.find(|keyspace| keyspace.settings.name == name)
    }

    /// This is the first node.
    fn decide(
        &mut self,
        origin: Origin,
        deadline: Instant,
        settings: KeyspaceSettings,
        existing: Option<Keyspace>,
        effects: &mut Vec<Effect>,
    ) {
        let created = existing.is_none();
        let keyspace = existing.unwrap_or_else(|| Keyspace {
            id: self.next_id(),
            settings,
        });
        let kind = Kind::Creation {
            keyspace: keyspace.clone(),
            created,
            defined: BTreeSet::new(),
        };
        let waiter = Waiter::Creation(self.begin(origin, deadline, kind, effects));
        if self.keyspaces.contains_key(&keyspace.id) {
            self.known(keyspace, vec![waiter], effects);
        } else {
            self.write(keyspace, waiter, effects);
        }
    }

    /// Greater than every id that was ever given out here.
    fn next_id(&self) -> KeyspaceId {
        let pending = self.pending.values().map(|pending| pending.keyspace.id);
        let last = self.keyspaces.keys().copied().chain(pending).max();
        KeyspaceId(last.map_or(1, |id| id.0 + 1))
    }

    fn begin(&mut self, origin: Origin, deadline: Instant, kind: Kind, effects: &mut Vec<Effect>) -> u64 {
        let id = self.token();
        let exchange = Exchange {
            origin,
            deadline,
            kind,
        };
        self.exchanges.insert(id, exchange);
        self.set_timer(effects);
        id
    }

    fn set_timer(&self, effects: &mut Vec<Effect>) {
        if let Some(at) = self.exchanges.values().map(|exchange| exchange.deadline).min() {
            effects.push(Effect::SetTimer { id: TIMER, at });
        }
    }

    /// The first node serves the keyspace: the others are to do so, too.
    pub(super) fn propagate(&mut self, id: u64, keyspace: &Keyspace, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        for node in self.others() {
            let message = Message::Define(keyspace.clone());
            self.send((node, RoleId::Catalog), (id, exchange.deadline), message, effects);
        }
        self.defined(id, self.me(), effects);
    }

    /// A member has the definition durably and serves the keyspace.
    pub(super) fn defined(&mut self, id: u64, by: NodeId, effects: &mut Vec<Effect>) {
        let members = self.members().count();
        let Some(Kind::Creation {
            keyspace,
            created,
            defined,
        }) = self.exchanges.get_mut(&id).map(|exchange| &mut exchange.kind)
        else {
            return;
        };
        defined.insert(by);
        if defined.len() == members {
            let response = Response::Keyspace {
                keyspace: keyspace.clone(),
                created: *created,
            };
            self.finish(id, Ok(response), effects);
        }
    }

    /// A member could not define it. The first node has it already, so that the creation is half done; only a
    /// conflicting definition can never be completed by asking again.
    pub(super) fn failed(&mut self, id: u64, error: Error, effects: &mut Vec<Effect>) {
        match error {
            Error::KeyspaceExists(_) => self.finish(id, Err(error), effects),
            error => self.give_up(id, Some(error.to_string()), effects),
        }
    }

    pub(super) fn finish(&mut self, id: u64, result: Result<Response, Error>, effects: &mut Vec<Effect>) {
        if let Some(exchange) = self.exchanges.remove(&id) {
            self.answer(exchange.origin, result, effects);
        }
    }

    /// Not everyone has answered, and no more answers are expected, for this reason if not because the time is up.
    fn give_up(&mut self, id: u64, reason: Option<String>, effects: &mut Vec<Effect>) {
        let required = self.members().count() as u8;
        let acked = match self.exchanges.get(&id).map(|exchange| &exchange.kind) {
            Some(Kind::Creation { defined, .. }) => defined.len() as u8,
            _ => 0,
        };
        let unknown = Error::OutcomeUnknown {
            acked,
            required,
            reason,
        };
        self.finish(id, Err(unknown), effects);
    }

    /// A member is out of reach: what waits for it is given up.
    pub(super) fn lost(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let waits = |exchange: &Exchange| match &exchange.kind {
            Kind::Creation { defined, .. } => !defined.contains(&node),
            Kind::Forwarded { to } => *to == node,
        };
        for id in self.exchanges_that(waits) {
            self.give_up(id, Some(format!("{node} is out of reach")), effects);
        }
    }

    /// Time has passed: what is past its deadline is given up.
    pub(super) fn late(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for id in self.exchanges_that(|exchange| exchange.deadline <= now.instant) {
            self.give_up(id, None, effects);
        }
        self.set_timer(effects);
    }

    fn exchanges_that(&self, wanted: impl Fn(&Exchange) -> bool) -> Vec<u64> {
        let exchanges = self.exchanges.iter();
        exchanges
            .filter(|(_, exchange)| wanted(exchange))
            .map(|(id, _)| *id)
            .collect()
    }
}
