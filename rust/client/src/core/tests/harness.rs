//! A scripted cluster: it accepts connections and describes the cluster; tests respond to operations.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::{
    ClientHello, Committed, Entry, MAX_CLIENT_FRAME, PutItem, ReadLevel, Request, RequestFrame, Response,
    ResponseFrame, ServerHello, View, Written,
};
use quorate_protocol::frame::{Decoder, encode};
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceSettings};
use quorate_protocol::placement::Placement;
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_protocol::telemetry::Span;
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::types::GroupId;
use quorate_ring::RingSettings;
use quorate_versions::{Context, Dot, WriteId};

use super::super::{CallOptions, ClientConfig, ClientCore, ClientEffect, ClientEvent, Outcome};

pub(super) const CLUSTER: ClusterId = ClusterId(77);
pub(super) const USERS: KeyspaceId = KeyspaceId(1);
/// A consensus keyspace of two groups.
pub(super) const ACCOUNTS: KeyspaceId = KeyspaceId(2);
/// Its first group, of n1, n2 and n3 (or as many as there are).
pub(super) const GROUP: GroupId = GroupId(10);
/// Its other group, of the same nodes, n3 first.
pub(super) const OTHER_GROUP: GroupId = GroupId(11);

/// The behaviour of a dialled address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Accepts, completes the handshake, and responds to the client's own requests.
    Up,
    /// Refuses connections.
    Refusing,
    /// Drops everything.
    Silent,
    /// Accepts and responds to the hello with this.
    Greeting(ServerHello),
}

/// An operation that reached a node.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) node: NodeId,
    pub(super) connection: u64,
    pub(super) frame: RequestFrame,
}

pub(super) struct Harness {
    pub(super) core: ClientCore,
    pub(super) rng: Rng,
    pub(super) now: u64,
    pub(super) topology: Topology,
    pub(super) keyspaces: Vec<Keyspace>,
    pub(super) behaviour: BTreeMap<String, Behaviour>,
    /// Connections that the client considers open, with the bytes of its stream.
    pub(super) open: BTreeMap<u64, (String, Decoder)>,
    pub(super) greeted: Vec<u64>,
    pub(super) arrived: Vec<Arrived>,
    pub(super) completed: BTreeMap<u64, Outcome>,
    pub(super) opened: Vec<Result<(), Error>>,
    pub(super) spans: Vec<Span>,
    pub(super) dialled: Vec<(u64, String)>,
    /// Whether the client's invariants are checked after each event (in time that grows with what is in flight).
    pub(super) checking: bool,
    timer: Option<u64>,
    last_op: u64,
}

pub(super) fn address(node: u16) -> String {
    format!("n{node}:7400")
}

pub(super) fn topology(nodes: u16) -> Topology {
    let member = |number| Member {
        id: NodeId(number),
        peer_address: format!("n{number}:7300"),
        client_address: address(number),
        http_address: format!("n{number}:7500"),
        rack: "default".to_owned(),
        datacenter: "default".to_owned(),
    };
    Topology::new(
        CLUSTER,
        1,
        (1..=nodes).map(member).collect(),
        RingSettings::default(),
    )
    .unwrap()
}

pub(super) fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

pub(super) fn put(text: &str) -> Request {
    Request::Put {
        keyspace: USERS,
        key: key(text),
        value: Some(Bytes::from_static(b"v")),
        context: None,
        level: None,
        write_id: WriteId {
            client: 0,
            sequence: 0,
        },
    }
}

pub(super) fn get(text: &str) -> Request {
    Request::Get {
        keyspace: USERS,
        key: key(text),
        level: None,
    }
}

pub(super) fn get_many(names: &[String]) -> Request {
    Request::GetMany {
        keyspace: USERS,
        keys: names.iter().map(|name| key(name)).collect(),
        level: None,
    }
}

pub(super) fn put_many(items: Vec<PutItem>) -> Request {
    Request::PutMany {
        keyspace: USERS,
        items,
        level: None,
        write_id: WriteId::default(),
    }
}

pub(super) fn written() -> Response {
    let dot = Dot {
        replica: ReplicaId::new(NodeId(1), 1),
        counter: 1,
    };
    Response::Written(Written {
        dot,
        context: Context::default(),
        timestamp: Timestamp::default(),
        acked: vec![NodeId(1)],
        coordinator: NodeId(1),
        level: Level::Quorum,
    })
}

pub(super) fn entry() -> Response {
    Response::Entry(Entry {
        versions: Vec::new(),
        context: Context::default(),
        answered: vec![NodeId(1)],
        coordinator: NodeId(1),
        level: Level::Quorum,
    })
}

fn accounts(replicas: u16) -> Keyspace {
    let members: Vec<NodeId> = (1..=replicas).map(NodeId).collect();
    Keyspace {
        id: ACCOUNTS,
        settings: KeyspaceSettings {
            shards: 2,
            ..KeyspaceSettings::consensus("accounts", replicas as u8)
        },
        groups: vec![
            Group {
                id: GROUP,
                members: members.clone(),
            },
            Group {
                id: OTHER_GROUP,
                members: members.into_iter().rev().collect(),
            },
        ],
    }
}

/// A command for `GROUP`.
pub(super) fn propose(text: &str) -> Request {
    Request::Propose {
        keyspace: ACCOUNTS,
        group: GROUP,
        command: Command::Write(vec![Write {
            key: key(text),
            value: Some(Bytes::from_static(b"v")),
            condition: Condition::Any,
        }]),
        session: None,
    }
}

/// A read of `GROUP`.
pub(super) fn read(level: ReadLevel) -> Request {
    Request::Read {
        keyspace: ACCOUNTS,
        group: GROUP,
        keys: vec![key("a")],
        level,
    }
}

pub(super) fn committed(index: u64, leader: u16) -> Response {
    Response::Committed(Committed {
        index,
        term: 1,
        leader: NodeId(leader),
    })
}

pub(super) fn opened(session: u64, leader: u16) -> Response {
    Response::SessionOpened {
        session,
        leader: NodeId(leader),
    }
}

pub(super) fn records(node: u16, leader: u16, staleness_micros: Option<u64>) -> Response {
    Response::Records {
        records: vec![None],
        view: View {
            node: NodeId(node),
            leader: Some(NodeId(leader)),
            applied: 1,
            staleness_micros,
        },
    }
}

impl Harness {
    /// A cluster of so many nodes with the keyspace `users` (three replicas), and a client with all addresses that has
    /// not started.
    pub(super) fn new(nodes: u16) -> Self {
        Harness::with_endpoints(nodes, (1..=nodes).map(address).collect())
    }

    pub(super) fn with_endpoints(nodes: u16, endpoints: Vec<String>) -> Self {
        let core = ClientCore::new(ClientConfig::new(endpoints, 4242)).unwrap();
        Harness {
            core,
            rng: rng_from_seed(1),
            now: 1_000_000,
            topology: topology(nodes),
            keyspaces: vec![
                Keyspace {
                    id: USERS,
                    settings: KeyspaceSettings::quorum("users", 3.min(nodes as u8)),
                    groups: Vec::new(),
                },
                accounts(3.min(nodes)),
            ],
            behaviour: (1..=nodes).map(|node| (address(node), Behaviour::Up)).collect(),
            open: BTreeMap::new(),
            greeted: Vec::new(),
            arrived: Vec::new(),
            completed: BTreeMap::new(),
            opened: Vec::new(),
            spans: Vec::new(),
            dialled: Vec::new(),
            checking: true,
            timer: None,
            last_op: 0,
        }
    }

    /// Started, and connected to all nodes.
    pub(super) fn ready(nodes: u16) -> Self {
        let mut harness = Harness::new(nodes);
        harness.event(ClientEvent::Start);
        assert_eq!(harness.opened, vec![Ok(())]);
        harness
    }

    pub(super) fn instants(&self) -> Now {
        Now {
            instant: Instant(self.now),
            wall: WallTime(1_700_000_000_000_000 + self.now),
        }
    }

    /// Passes an event to the client, and performs the effects on the cluster.
    pub(super) fn event(&mut self, event: ClientEvent) {
        let mut events = vec![event];
        while !events.is_empty() {
            let mut effects = Vec::new();
            for event in events.drain(..) {
                self.core
                    .handle(self.instants(), &mut self.rng, event, &mut effects);
                if self.checking {
                    self.core.check();
                }
            }
            for effect in effects {
                events.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: ClientEffect) -> Vec<ClientEvent> {
        match effect {
            ClientEffect::Connect { connection, address } => {
                self.dialled.push((connection, address.clone()));
                match self.behaviour.get(&address) {
                    None | Some(Behaviour::Refusing) => {
                        return vec![ClientEvent::Disconnected {
                            connection,
                            written: 0,
                            error: Error::ConnectionRefused("connection refused".to_owned()),
                        }];
                    }
                    Some(Behaviour::Silent) => {
                        self.open
                            .insert(connection, (address, Decoder::new(MAX_CLIENT_FRAME)));
                    }
                    Some(_) => {
                        self.open
                            .insert(connection, (address, Decoder::new(MAX_CLIENT_FRAME)));
                        return vec![ClientEvent::Connected { connection }];
                    }
                }
                Vec::new()
            }
            ClientEffect::Send { connection, bytes } => self.arrive(connection, &bytes),
            ClientEffect::Disconnect { connection } => {
                self.open.remove(&connection);
                Vec::new()
            }
            ClientEffect::Complete { op, outcome } => {
                let before = self.completed.insert(op, outcome);
                assert_eq!(before, None, "operation {op} completed twice");
                Vec::new()
            }
            ClientEffect::SetTimer { at } => {
                self.timer = Some(at.0);
                Vec::new()
            }
            ClientEffect::Opened(result) => {
                self.opened.push(result);
                Vec::new()
            }
            ClientEffect::Span(span) => {
                self.spans.push(*span);
                Vec::new()
            }
        }
    }

    /// Bytes of the client arrive at a node, which responds to the client's own requests.
    fn arrive(&mut self, connection: u64, bytes: &[u8]) -> Vec<ClientEvent> {
        let Some((address, decoder)) = self.open.get_mut(&connection) else {
            return Vec::new();
        };
        let behaviour = self
            .behaviour
            .get(address)
            .cloned()
            .unwrap_or(Behaviour::Refusing);
        let node: NodeId = address.split(':').next().unwrap().parse().unwrap();
        if behaviour == Behaviour::Silent {
            return Vec::new();
        }
        decoder.extend(bytes);
        let mut out = BytesMut::new();
        if !self.greeted.contains(&connection) {
            assert!(decoder.magic().unwrap());
            decoder.decode::<ClientHello>().unwrap().expect("a whole hello");
            self.greeted.push(connection);
            let hello = match behaviour {
                Behaviour::Greeting(hello) => hello,
                _ => ServerHello::Welcome {
                    version: 1,
                    features: 0,
                    cluster: CLUSTER,
                    node,
                    boot: BootId(u64::from(node.0)),
                },
            };
            encode(&hello, MAX_CLIENT_FRAME, &mut out).unwrap();
        }
        while let Some(frame) = decoder.decode::<RequestFrame>().unwrap() {
            let response = match &frame.request {
                Request::Topology if frame.id < 256 => Response::Topology(Box::new(self.topology.clone())),
                Request::ListKeyspaces if frame.id < 256 => Response::Keyspaces(self.keyspaces.clone()),
                _ => {
                    self.arrived.push(Arrived {
                        node,
                        connection,
                        frame,
                    });
                    continue;
                }
            };
            let frame = ResponseFrame {
                id: frame.id,
                response: Ok(response),
            };
            encode(&frame, MAX_CLIENT_FRAME, &mut out).unwrap();
        }
        match out.is_empty() {
            true => Vec::new(),
            false => vec![ClientEvent::Received {
                connection,
                bytes: out.freeze(),
            }],
        }
    }

    /// Submits an operation with a timeout of two seconds and returns its id.
    pub(super) fn submit(&mut self, request: Request) -> u64 {
        self.submit_with(request, CallOptions::timeout(Duration::from_secs(2)))
    }

    pub(super) fn submit_with(&mut self, request: Request, options: CallOptions) -> u64 {
        self.last_op += 1;
        let op = self.last_op;
        self.event(ClientEvent::Submit { op, request, options });
        op
    }

    /// The last operation that arrived and was not taken yet.
    pub(super) fn take(&mut self) -> Arrived {
        self.arrived
            .pop()
            .expect("an operation should have arrived at a node")
    }

    pub(super) fn reply(&mut self, to: &Arrived, response: Result<Response, Error>) {
        let frame = ResponseFrame {
            id: to.frame.id,
            response,
        };
        let mut out = BytesMut::new();
        encode(&frame, MAX_CLIENT_FRAME, &mut out).unwrap();
        self.event(ClientEvent::Received {
            connection: to.connection,
            bytes: out.freeze(),
        });
    }

    /// The connection to a node breaks after `written` bytes.
    pub(super) fn cut(&mut self, node: u16, written: u64) {
        let connection = self.connection_to(node);
        self.open.remove(&connection);
        self.event(ClientEvent::Disconnected {
            connection,
            written,
            error: Error::ConnectionLost("connection reset".to_owned()),
        });
    }

    pub(super) fn connection_to(&self, node: u16) -> u64 {
        let at = |(_, (open, _)): &(&u64, &(String, Decoder))| *open == address(node);
        *self
            .open
            .iter()
            .rev()
            .find(at)
            .expect("a connection to the node")
            .0
    }

    /// Advances the clock, firing the client's timers.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now + u64::try_from(duration.as_micros()).unwrap();
        while let Some(at) = self.timer.filter(|at| *at <= end) {
            self.timer = None;
            self.now = self.now.max(at);
            self.event(ClientEvent::Timer);
        }
        self.now = end;
    }

    pub(super) fn outcome(&self, op: u64) -> &Outcome {
        self.completed.get(&op).expect("the operation should be complete")
    }

    pub(super) fn error(&self, op: u64) -> &Error {
        self.outcome(op)
            .result
            .as_ref()
            .expect_err("the operation should have failed")
    }

    /// The nodes that store a key, most preferred first.
    pub(super) fn replicas(&self, text: &str) -> Vec<NodeId> {
        let placement = Placement::new(self.topology.clone()).unwrap();
        let replicas = self.keyspaces[0].settings.replicas;
        placement.preference(replicas).unwrap().of(&key(text)).to_vec()
    }
}
