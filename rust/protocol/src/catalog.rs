//! The catalog: which keyspaces exist. The interim way, until the control plane keeps them in its log.
//!
//! A definition is written durably on *every* node before its creation is answered, so that any node can serve the
//! keyspace and a restart finds it. The catalog of the member with the lowest id is the only one that gives out ids
//! and decides which of two conflicting definitions came first; the others forward to it. Nothing is lost by that:
//! a creation needs every node anyway.
//!
//! * The same definition again is a no-op that also completes an earlier attempt that was cut short.
//! * A different definition under the same name is [`Error::KeyspaceExists`].
//! * With any member unreachable it is [`Error::Unavailable`], before anything is written. One that is lost midway
//!   makes it [`Error::OutcomeUnknown`]: ask again when the member is back.
//!
//! Invariant: no two keyspaces share an id or a name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand_core::Rng as _;

use crate::api::{Request, Response};
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId};
use crate::keyspace::{Keyspace, KeyspaceSettings};
use crate::message::{Header, Message};
use crate::role::{Address, ClientRef, Effect, Event, Query, Rng, Role, RoleId, Surroundings};
use crate::store::{JournalOp, Priority, StateWrite, Table};
use crate::telemetry::TimelineEvent;
use crate::time::{Instant, Now};

const PREFIX: &[u8] = b"keyspace/";
const PREFIX_END: &[u8] = b"keyspace0";
const FORMAT: u8 = 1;
const LOAD: u64 = 0;
const TIMER: u64 = 0;

/// Who is waiting for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin {
    Client(ClientRef),
    Peer(Address, Header),
}

/// Why this node writes a definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// It was read from the disk at the start.
    Recovery,
    /// This is the first node, and this exchange creates it.
    Creation(u64),
    /// The first node asked.
    Definition(Address, Header),
}

/// A creation that the first node drives, or one that another node has forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Exchange {
    origin: Origin,
    deadline: Instant,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Creation {
        keyspace: Keyspace,
        created: bool,
        defined: BTreeSet<NodeId>,
    },
    Forwarded {
        to: NodeId,
    },
}

/// The catalog role of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Catalog {
    surroundings: Surroundings,
    loaded: bool,
    /// What came before the definitions were read.
    early: Vec<Event>,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// Definitions on their way to the disk or to the node role, by token.
    pending: BTreeMap<u64, (Keyspace, Purpose)>,
    exchanges: BTreeMap<u64, Exchange>,
    last_token: u64,
}

impl Catalog {
    /// A catalog that reads its definitions when it starts.
    pub fn new(surroundings: &Surroundings) -> Self {
        Catalog {
            surroundings: surroundings.clone(),
            loaded: false,
            early: Vec::new(),
            keyspaces: BTreeMap::new(),
            pending: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            last_token: LOAD,
        }
    }

    fn members(&self) -> Vec<NodeId> {
        self.surroundings.placement.topology().ids().collect()
    }

    fn first(&self) -> NodeId {
        self.members()[0]
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn header(&self, request: u64, deadline: Instant) -> Header {
        let generation = self.surroundings.placement.topology().generation;
        Header {
            generation,
            request,
            deadline,
            trace: None,
        }
    }

    fn address(&self, node: NodeId, role: RoleId) -> Address {
        Address { node, role }
    }

    fn answer(&self, origin: Origin, result: Result<Response, Error>, effects: &mut Vec<Effect>) {
        effects.push(match origin {
            Origin::Client(client) => Effect::Reply {
                client,
                response: result,
            },
            Origin::Peer(to, header) => Effect::Send {
                to,
                header,
                message: Message::Forwarded(result),
            },
        });
    }

    // ---- recovery ----

    fn start(&self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Read {
            token: LOAD,
            query: Query::Range {
                table: Table::Meta,
                start: Bytes::from_static(PREFIX),
                end: Bytes::from_static(PREFIX_END),
                limit_rows: u32::MAX,
                limit_bytes: u32::MAX,
            },
        });
    }

    fn load(&mut self, rows: Vec<(Bytes, Bytes)>, effects: &mut Vec<Effect>) {
        for (key, value) in rows {
            let keyspace = decode(&value).unwrap_or_else(|reason| {
                panic!(
                    "the keyspace definition {} is unreadable: {reason}",
                    String::from_utf8_lossy(&key)
                )
            });
            self.known(keyspace, Purpose::Recovery, effects);
        }
        self.loaded = true;
    }

    /// A definition is durable: have the node role serve it, and go on when it does.
    fn known(&mut self, keyspace: Keyspace, purpose: Purpose, effects: &mut Vec<Effect>) {
        let clash = self
            .keyspaces
            .values()
            .find(|other| (other.id == keyspace.id) != (other.settings.name == keyspace.settings.name));
        assert!(
            clash.is_none(),
            "two keyspaces share an id or a name: {keyspace:?} and {clash:?}"
        );
        self.keyspaces.insert(keyspace.id, keyspace.clone());
        let token = self.token();
        self.pending.insert(token, (keyspace.clone(), purpose));
        effects.push(Effect::Send {
            to: self.address(self.surroundings.me(), RoleId::Node),
            header: self.header(token, Instant::NEVER),
            message: Message::KeyspaceKnown(keyspace),
        });
    }

    fn served(&mut self, token: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some((keyspace, purpose)) = self.pending.remove(&token) else {
            return;
        };
        match purpose {
            Purpose::Recovery => {}
            Purpose::Definition(to, header) => {
                effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Defined,
                });
            }
            Purpose::Creation(exchange) => {
                self.propagate(exchange, &keyspace, now, effects);
            }
        }
    }

    fn persist(&mut self, keyspace: Keyspace, purpose: Purpose, effects: &mut Vec<Effect>) {
        let write = StateWrite {
            table: Table::Meta,
            key: row_key(&keyspace.settings.name),
            value: Some(encode(&keyspace)),
        };
        let token = self.token();
        self.pending.insert(token, (keyspace, purpose));
        effects.push(Effect::Persist {
            token,
            priority: Priority::Urgent,
            ops: vec![JournalOp::Write(vec![write])],
        });
    }

    fn persisted(&mut self, token: u64, effects: &mut Vec<Effect>) {
        let Some((keyspace, purpose)) = self.pending.remove(&token) else {
            return;
        };
        effects.push(Effect::Emit(TimelineEvent::KeyspaceCreated {
            keyspace: keyspace.settings.name.clone(),
        }));
        self.known(keyspace, purpose, effects);
    }

    fn refused(&mut self, token: u64, effects: &mut Vec<Effect>) {
        let Some((keyspace, purpose)) = self.pending.remove(&token) else {
            return;
        };
        let error = Error::StorageFull(format!(
            "the disk of {} is full: keyspace {:?} was not created; free space and try again",
            self.surroundings.me(),
            keyspace.settings.name
        ));
        match purpose {
            Purpose::Recovery => {}
            Purpose::Definition(to, header) => {
                effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Failed(error),
                });
            }
            Purpose::Creation(exchange) => self.finish(exchange, Err(error), effects),
        }
    }

    // ---- creation ----

    fn request(&mut self, origin: Origin, header: Header, request: Request, effects: &mut Vec<Effect>) {
        let result = match request {
            Request::ListKeyspaces => Ok(Response::Keyspaces(self.keyspaces.values().cloned().collect())),
            Request::CreateKeyspace(settings) => return self.create(origin, header, settings, effects),
            other => Err(Error::invalid(format!("the catalog does not answer {other:?}"))),
        };
        self.answer(origin, result, effects);
    }

    fn create(
        &mut self,
        origin: Origin,
        header: Header,
        settings: KeyspaceSettings,
        effects: &mut Vec<Effect>,
    ) {
        let members = self.members();
        if let Err(error) = settings.validate(members.len()) {
            return self.answer(origin, Err(error), effects);
        }
        let existing = self
            .keyspaces
            .values()
            .find(|keyspace| keyspace.settings.name == settings.name)
            .cloned();
        if let Some(existing) = &existing
            && existing.settings != settings
        {
            return self.answer(origin, Err(exists(existing)), effects);
        }
        let alive = members
            .iter()
            .filter(|node| self.surroundings.alive.contains(node))
            .count();
        if alive < members.len() {
            let error = Error::Unavailable {
                required: members.len() as u8,
                alive: alive as u8,
            };
            return self.answer(origin, Err(error), effects);
        }
        let exchange = self.token();
        let first = self.first();
        if first != self.surroundings.me() {
            effects.push(Effect::Send {
                to: self.address(first, RoleId::Catalog),
                header: self.header(exchange, header.deadline),
                message: Message::Forward(Request::CreateKeyspace(settings)),
            });
            self.begin(
                exchange,
                origin,
                header.deadline,
                Kind::Forwarded { to: first },
                effects,
            );
            return;
        }
        let creating = self
            .pending
            .values()
            .find(|(keyspace, _)| keyspace.settings.name == settings.name);
        if let Some((other, _)) = creating
            && other.settings != settings
        {
            return self.answer(origin, Err(exists(&other.clone())), effects);
        }
        let id = existing.as_ref().map(|keyspace| keyspace.id);
        let id = id
            .or_else(|| creating.map(|(keyspace, _)| keyspace.id))
            .unwrap_or_else(|| self.next_id());
        let keyspace = Keyspace { id, settings };
        let created = existing.is_none();
        let kind = Kind::Creation {
            keyspace: keyspace.clone(),
            created,
            defined: BTreeSet::new(),
        };
        self.begin(exchange, origin, header.deadline, kind, effects);
        if created {
            self.persist(keyspace, Purpose::Creation(exchange), effects);
        } else {
            self.known(keyspace, Purpose::Creation(exchange), effects);
        }
    }

    /// Greater than every id that was ever given out here.
    fn next_id(&self) -> KeyspaceId {
        let pending = self.pending.values().map(|(keyspace, _)| keyspace.id);
        let last = self.keyspaces.keys().copied().chain(pending).max();
        KeyspaceId(last.map_or(1, |id| id.0 + 1))
    }

    fn begin(&mut self, id: u64, origin: Origin, deadline: Instant, kind: Kind, effects: &mut Vec<Effect>) {
        self.exchanges.insert(
            id,
            Exchange {
                origin,
                deadline,
                kind,
            },
        );
        self.set_timer(effects);
    }

    fn set_timer(&self, effects: &mut Vec<Effect>) {
        if let Some(at) = self.exchanges.values().map(|exchange| exchange.deadline).min() {
            effects.push(Effect::SetTimer { id: TIMER, at });
        }
    }

    fn propagate(&mut self, id: u64, keyspace: &Keyspace, now: Now, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        let header = self.header(id, exchange.deadline.max(now.instant));
        for node in self.members() {
            if node != self.surroundings.me() {
                let to = self.address(node, RoleId::Catalog);
                effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Define(keyspace.clone()),
                });
            }
        }
        self.defined(id, self.surroundings.me(), effects);
    }

    fn defined(&mut self, id: u64, by: NodeId, effects: &mut Vec<Effect>) {
        let members = self.members();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let Kind::Creation {
            keyspace,
            created,
            defined,
        } = &mut exchange.kind
        else {
            return;
        };
        defined.insert(by);
        if members.iter().all(|node| defined.contains(node)) {
            let response = Response::Keyspace {
                keyspace: keyspace.clone(),
                created: *created,
            };
            self.finish(id, Ok(response), effects);
        }
    }

    fn finish(&mut self, id: u64, result: Result<Response, Error>, effects: &mut Vec<Effect>) {
        if let Some(exchange) = self.exchanges.remove(&id) {
            self.answer(exchange.origin, result, effects);
        }
    }

    /// Not everyone has answered, and no more answers are expected.
    fn give_up(&mut self, id: u64, effects: &mut Vec<Effect>) {
        let required = self.members().len() as u8;
        let acked = match self.exchanges.get(&id).map(|exchange| &exchange.kind) {
            Some(Kind::Creation { defined, .. }) => defined.len() as u8,
            _ => 0,
        };
        self.finish(id, Err(Error::OutcomeUnknown { acked, required }), effects);
    }

    // ---- the other nodes' side ----

    fn define(&mut self, from: Address, header: Header, keyspace: Keyspace, effects: &mut Vec<Effect>) {
        let known = self
            .keyspaces
            .values()
            .find(|known| known.id == keyspace.id || known.settings.name == keyspace.settings.name);
        match known {
            Some(known) if *known == keyspace => {
                self.known(keyspace, Purpose::Definition(from, header), effects);
            }
            Some(known) => {
                let message = Message::Failed(exists(known));
                effects.push(Effect::Send {
                    to: from,
                    header,
                    message,
                });
            }
            None => self.persist(keyspace, Purpose::Definition(from, header), effects),
        }
    }

    fn message(
        &mut self,
        now: Now,
        from: Address,
        header: Header,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            Message::Forward(request) => self.request(Origin::Peer(from, header), header, request, effects),
            Message::Forwarded(result) => self.finish(header.request, result, effects),
            Message::Define(keyspace) => self.define(from, header, keyspace, effects),
            Message::Defined if from.role == RoleId::Node => self.served(header.request, now, effects),
            Message::Defined => self.defined(header.request, from.node, effects),
            Message::Failed(error) => {
                let unknown = matches!(
                    self.exchanges.get(&header.request).map(|exchange| &exchange.kind),
                    Some(Kind::Creation { .. })
                );
                // The first node has it already, so a refusal elsewhere leaves the creation half done; only a
                // conflicting definition can never be completed by asking again.
                if unknown && !matches!(error, Error::KeyspaceExists(_)) {
                    self.give_up(header.request, effects);
                } else {
                    self.finish(header.request, Err(error), effects);
                }
            }
            _ => {}
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, effects: &mut Vec<Effect>) {
        if up {
            self.surroundings.alive.insert(node);
            return;
        }
        self.surroundings.alive.remove(&node);
        let waiting = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| match &exchange.kind {
                Kind::Creation { defined, .. } => !defined.contains(&node),
                Kind::Forwarded { to } => *to == node,
            });
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(id, effects);
        }
    }

    fn take(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => self.start(effects),
            Event::Read { token: LOAD, result } => match result {
                Ok(rows) => {
                    self.load(rows.rows, effects);
                    for event in std::mem::take(&mut self.early) {
                        self.take(now, event, effects);
                    }
                }
                Err(error) => panic!("the keyspace definitions cannot be read: {error}"),
            },
            Event::Peer { node, up } => self.peer(node, up, effects),
            event if !self.loaded => self.early.push(event),
            Event::Request {
                client,
                header,
                request,
            } => {
                self.request(Origin::Client(client), header, request, effects);
            }
            Event::Message {
                from,
                header,
                message,
            } => self.message(now, from, header, message, effects),
            Event::Persisted { tokens } => {
                for token in tokens {
                    self.persisted(token, effects);
                }
            }
            Event::PersistRefused { token } => self.refused(token, effects),
            Event::Timer { .. } => {
                let late = self
                    .exchanges
                    .iter()
                    .filter(|(_, exchange)| exchange.deadline <= now.instant);
                for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.give_up(id, effects);
                }
                self.set_timer(effects);
            }
            Event::Read { .. } => {}
        }
    }
}

impl Role for Catalog {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        if event == Event::Start {
            // Answers to a request of the boot before must not be taken for answers to one of this boot.
            self.last_token = (rng.next_u64() >> 1).max(LOAD);
        }
        self.take(now, event, effects);
    }
}

fn exists(keyspace: &Keyspace) -> Error {
    let settings = &keyspace.settings;
    Error::KeyspaceExists(format!(
        "keyspace {:?} exists with other settings (mode={:?} replicas={} read={} write={} read_repair={:?}): use these, \
         or choose another name",
        settings.name,
        settings.mode,
        settings.replicas,
        settings.read_level,
        settings.write_level,
        settings.read_repair
    ))
}

fn row_key(name: &str) -> Bytes {
    [PREFIX, name.as_bytes()].concat().into()
}

fn encode(keyspace: &Keyspace) -> Bytes {
    postcard::to_extend(keyspace, vec![FORMAT])
        .expect("a definition is always encodable")
        .into()
}

fn decode(bytes: &[u8]) -> Result<Keyspace, String> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| error.to_string()),
        Some((format, _)) => Err(format!("format {format} is newer than this program: upgrade it")),
        None => Err("empty".to_owned()),
    }
}
