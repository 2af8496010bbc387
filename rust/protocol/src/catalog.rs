//! The catalog: which keyspaces exist. The interim way, until the control plane keeps them in its log.
//!
//! A definition is written durably on *every* node before its creation is answered, so that any node can serve the
//! keyspace and a restart finds it. The catalog of the member with the lowest id is the only one that gives out ids
//! and decides which of two conflicting definitions came first; the others forward to it. Nothing is lost by that:
//! a creation needs every node anyway.
//!
//! * The same definition again is a no-op; while all members can be reached, one that everybody has confirmed.
//! * A different definition under the same name is [`Error::KeyspaceExists`].
//! * With any member unreachable a new one is [`Error::Unavailable`], before anything is written. One that is lost
//!   midway makes it [`Error::OutcomeUnknown`].
//! * What the first node has durably is decided. It tells every member that comes into reach, so a creation that was
//!   cut short completes itself.
//!
//! Invariant: no two keyspaces share an id or a name.

mod creation;
mod definitions;

use std::collections::BTreeMap;

use rand_core::Rng as _;

use crate::api::{Request, Response};
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId};
use crate::keyspace::Keyspace;
use crate::message::{Header, Message};
use crate::role::{Address, ClientRef, Effect, Event, Rng, Role, RoleId, Surroundings};
use crate::time::{Instant, Now};
use creation::Exchange;
use definitions::Pending;

/// The token of the read of all definitions.
const LOAD: u64 = 0;
/// The name of an exchange that nobody follows: the first node tells a member what it may have missed.
const UNASKED: u64 = 0;
const TIMER: u64 = 0;

/// Who is waiting for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin {
    Client(ClientRef),
    Peer(Address, Header),
}

/// The catalog role of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Catalog {
    surroundings: Surroundings,
    loaded: bool,
    /// What came before the definitions were read.
    early: Vec<Event>,
    /// What is durable here.
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// Definitions on their way to the disk or to the node role, by token.
    pending: BTreeMap<u64, Pending>,
    exchanges: BTreeMap<u64, Exchange>,
    /// Names persists and exchanges. Starts from a random number, so that an answer to an exchange of an earlier boot
    /// is not taken for another's.
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

    fn me(&self) -> NodeId {
        self.surroundings.me()
    }

    fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.surroundings.placement.topology().ids()
    }

    fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members().filter(|node| *node != self.me())
    }

    fn first(&self) -> NodeId {
        self.members().next().expect("a topology has members")
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn send(
        &self,
        to: (NodeId, RoleId),
        (request, deadline): (u64, Instant),
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let (node, role) = to;
        effects.push(Effect::Send {
            to: Address { node, role },
            header: Header {
                generation: self.surroundings.placement.topology().generation,
                request,
                deadline,
                trace: None,
            },
            message,
        });
    }

    fn answer(&self, origin: Origin, response: Result<Response, Error>, effects: &mut Vec<Effect>) {
        effects.push(match origin {
            Origin::Client(client) => Effect::Reply { client, response },
            Origin::Peer(to, header) => Effect::Send {
                to,
                header,
                message: Message::Forwarded(response),
            },
        });
    }

    fn request(
        &mut self,
        origin: Origin,
        deadline: Instant,
        request: Request,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let result = match request {
            Request::ListKeyspaces => Ok(Response::Keyspaces(self.keyspaces.values().cloned().collect())),
            Request::CreateKeyspace(_) if deadline <= now.instant => Err(Error::Overloaded(format!(
                "{} began with the creation only after its deadline, and wrote nothing: allow more time",
                self.me()
            ))),
            Request::CreateKeyspace(settings) => return self.create(origin, deadline, settings, effects),
            other => Err(Error::invalid(format!("the catalog does not answer {other:?}"))),
        };
        self.answer(origin, result, effects);
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
            Message::Forward(request) => {
                let origin = Origin::Peer(from, header);
                self.request(origin, header.deadline, request, now, effects);
            }
            Message::Forwarded(result) => self.finish(header.request, result, effects),
            Message::Define(keyspace) => self.define(from, header, keyspace, effects),
            Message::Defined if from.role == RoleId::Node => self.served(header.request, effects),
            Message::Defined => self.defined(header.request, from.node, effects),
            Message::Failed(error) => self.failed(header.request, error, effects),
            _ => {}
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, effects: &mut Vec<Effect>) {
        if up {
            self.surroundings.alive.insert(node);
            if self.loaded {
                self.tell(node, effects);
            }
        } else {
            self.surroundings.alive.remove(&node);
            self.lost(node, effects);
        }
    }

    fn take(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => self.load(effects),
            Event::Read { token: LOAD, result } => {
                self.recover(result, effects);
                for event in std::mem::take(&mut self.early) {
                    self.take(now, event, effects);
                }
            }
            Event::Peer { node, up } => self.peer(node, up, effects),
            event if !self.loaded => self.early.push(event),
            Event::Request {
                client,
                header,
                request,
            } => {
                let origin = Origin::Client(client);
                self.request(origin, header.deadline, request, now, effects);
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
            Event::Timer { .. } => self.late(now, effects),
            Event::Read { .. } | Event::Settled { .. } | Event::Files { .. } => {}
        }
    }
}

impl Role for Catalog {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        if event == Event::Start {
            self.last_token = rng.next_u64() >> 8;
        }
        self.take(now, event, effects);
    }
}

/// Writes the settings as a caller gives them, so that they can be copied.
fn exists(keyspace: &Keyspace) -> Error {
    let settings = &keyspace.settings;
    let mode = format!("{:?}", settings.mode).to_lowercase();
    let read_repair = format!("{:?}", settings.read_repair).to_lowercase();
    Error::KeyspaceExists(format!(
        "keyspace {:?} exists with other settings (mode={mode} replicas={} read={} write={} \
         read_repair={read_repair}): use these, or choose another name",
        settings.name, settings.replicas, settings.read_level, settings.write_level,
    ))
}
