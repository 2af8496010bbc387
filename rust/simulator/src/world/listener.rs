//! The client listener of a simulated node: frames in, requests to roles, responses out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::admission::{Limits, Need, Rejection};
use quorate_protocol::api::{
    CLIENT_VERSION_MAX, ClientHello, MAX_CLIENT_FRAME, PeerStatus, Request, RequestFrame, Response,
    ResponseFrame, ServerHello, Status, StorageStatus,
};
use quorate_protocol::frame::{self, Decoder, FrameError, MAX_HELLO_FRAME, MAX_REQUEST_FRAME};
use quorate_protocol::message::Header;
use quorate_protocol::role::{ClientRef, Event};
use quorate_protocol::routing::{Route, route};

use super::World;
use super::machine::Port;
use crate::network::{Endpoint, SessionId, Side};

/// The limits of admission: lower than those of a real node, so that clients reach them.
pub(crate) const LIMITS: Limits = Limits {
    requests: 4096,
    request_bytes: 64 << 20,
    connection_requests: 1024,
    connection_bytes: 16 << 20,
    overdue: Duration::from_secs(1),
};

/// A client's connection.
pub(super) struct Connection {
    /// Unique within the process.
    pub(super) number: u64,
    decoder: Decoder,
    stage: Stage,
}

/// The stage of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Magic,
    Hello,
    Ready,
}

/// A message of a client.
enum Incoming {
    Hello,
    /// With the bytes of its frame.
    Request(Box<RequestFrame>, usize),
}

impl Connection {
    /// The next message, if it is complete.
    fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        if self.stage == Stage::Magic {
            if !self.decoder.magic()? {
                return Ok(None);
            }
            self.stage = Stage::Hello;
        }
        if self.stage == Stage::Hello {
            let hello = self.decoder.decode::<ClientHello>()?;
            if hello.is_some() {
                self.stage = Stage::Ready;
                self.decoder.set_limit(MAX_REQUEST_FRAME);
            }
            return Ok(hello.map(|_| Incoming::Hello));
        }
        Ok(self
            .decoder
            .decode_sized::<RequestFrame>()?
            .map(|(request, size)| Incoming::Request(Box::new(request), size)))
    }
}

impl World {
    /// A client connects to a node.
    pub(super) fn new_connection(&mut self, node: NodeId, session: SessionId) -> Connection {
        let process = self.process_mut(node);
        process.last_connection += 1;
        process.connections.insert(process.last_connection, session);
        Connection {
            number: process.last_connection,
            decoder: Decoder::new(MAX_HELLO_FRAME),
            stage: Stage::Magic,
        }
    }

    /// Handles bytes of a client, in random chunks.
    pub(super) fn client_bytes(&mut self, node: NodeId, session: SessionId, bytes: &Bytes) {
        for piece in self.pieces(bytes) {
            let Some(Port::Client(connection)) = self.process_mut(node).ports.get_mut(&session) else {
                return;
            };
            connection.decoder.extend(&piece);
            while let Some(Port::Client(connection)) = self.process_mut(node).ports.get_mut(&session) {
                let number = connection.number;
                match connection.next() {
                    Ok(None) => break,
                    Ok(Some(Incoming::Hello)) => self.welcome(node, session),
                    Ok(Some(Incoming::Request(request, size))) => self.request(node, number, *request, size),
                    Err(error) => panic!("a simulated client violated the protocol: {error}"),
                }
            }
        }
    }

    /// Splits bytes as a stream may be split: usually not at all.
    pub(super) fn pieces(&mut self, bytes: &Bytes) -> Vec<Bytes> {
        if bytes.len() < 2 || self.rng.chance(0.8) {
            return vec![bytes.clone()];
        }
        let cut = 1 + self.rng.below(bytes.len() as u64 - 1) as usize;
        vec![bytes.slice(..cut), bytes.slice(cut..)]
    }

    fn welcome(&mut self, node: NodeId, session: SessionId) {
        let boot = self.process_mut(node).boot;
        let hello = ServerHello::Welcome {
            version: CLIENT_VERSION_MAX,
            features: 0,
            cluster: self.cluster,
            node,
            boot,
        };
        let mut bytes = BytesMut::new();
        frame::encode(&hello, MAX_HELLO_FRAME, &mut bytes).expect("a welcome fits into a frame");
        self.send_to_client(session, bytes.freeze());
    }

    fn send_to_client(&mut self, session: SessionId, bytes: Bytes) {
        self.with_network(|network, now, flights| network.send(now, session, Side::Listener, bytes, flights));
    }

    fn request(&mut self, node: NodeId, connection: u64, frame: RequestFrame, size: usize) {
        let now = self.clocks(node);
        self.event_log.record(
            self.now,
            format_args!("{node} listener"),
            "takes",
            &(connection, &frame),
        );
        let client = ClientRef {
            connection,
            request: frame.id,
        };
        let header = Header {
            generation: self.placement.topology().generation,
            request: frame.id,
            deadline: now.instant + Duration::from_millis(u64::from(frame.deadline_ms)),
            trace: frame.trace,
        };
        self.record_request_id(node, connection, &frame);
        let members = self.placement.topology().members.len();
        let served = &self.served;
        let required = |need: &Need| {
            let keyspace = need.keyspace.and_then(|id| served.get(&id));
            need.required(members, keyspace.map(|served| &served.keyspace.settings))
        };
        let machine = self.machines.get_mut(&node).expect("a node");
        let process = machine.process.as_mut().expect("it takes requests");
        let in_flight = process.in_flight.entry(connection).or_default();
        let totals = &mut process.totals;
        match in_flight.admit(&frame, size, now.instant, &LIMITS, totals, required) {
            Ok(()) => {}
            Err(Rejection::Error(error)) => return self.answer(node, client, Err(error)),
            Err(Rejection::Duplicate) => panic!("a simulated client reused a request id: {frame:?}"),
        }
        let roles = &self.process_mut(node).roles;
        match route(&frame.request, |role| roles.contains_key(&role)) {
            Route::Node => {
                let response = self.own_answer(node, &frame.request);
                self.reply(node, client, Ok(response));
            }
            Route::Role(role) => {
                let delay = self.mail_time();
                self.mail(
                    node,
                    role,
                    Event::Request {
                        client,
                        header,
                        request: frame.request,
                    },
                    delay,
                );
            }
        }
    }

    /// Records the operation of a request.
    fn record_request_id(&mut self, node: NodeId, connection: u64, frame: &RequestFrame) {
        let session = self.process_mut(node).connections.get(&connection).copied();
        if let Some(Endpoint::Client(client)) = session.and_then(|session| self.network.dialler(session)) {
            let asked = self.operations_of_request(client, frame.id);
            if !asked.is_empty() {
                self.names.note(&frame.request, &asked);
            }
        }
    }

    /// The response of the node without a role.
    fn own_answer(&self, node: NodeId, request: &Request) -> Response {
        let machine = &self.machines[&node];
        let process = machine.process.as_ref().expect("it was asked something");
        match request {
            Request::Events { .. } => Response::Events(Vec::new()),
            Request::Spans { .. } => Response::Spans(Vec::new()),
            Request::Metrics => Response::Metrics(String::new()),
            Request::Groups => Response::Groups(Vec::new()),
            Request::Faults => Response::Faults(Vec::new()),
            _ => Response::Status(Box::new(Status {
                node,
                boot: process.boot,
                uptime_seconds: self.clocks(node).instant.0 / 1_000_000,
                version: "simulated".to_owned(),
                generation: self.placement.topology().generation,
                peers: process
                    .peers
                    .iter()
                    .map(|(peer, port)| PeerStatus {
                        node: *peer,
                        up: port.link.role().is_up(),
                        round_trip_micros: port
                            .link
                            .role()
                            .round_trip()
                            .map_or(0, |trip| trip.as_micros() as u64),
                        queued_bytes: port.link.role().queued_bytes(),
                    })
                    .collect(),
                keyspaces: self
                    .keyspaces()
                    .map(|keyspace| keyspace.settings.name.clone())
                    .collect(),
                data_directory: String::new(),
                stored_bytes: 0,
                in_flight: process.totals.requests as u64,
                storage: StorageStatus::default(),
            })),
        }
    }

    /// Handles the response of a role. Each request is answered once; responses to closed connections are dropped.
    pub(super) fn reply(&mut self, node: NodeId, client: ClientRef, response: Result<Response, Error>) {
        let process = self.process_mut(node);
        let in_flight = process.in_flight.get_mut(&client.connection);
        let released = in_flight.and_then(|in_flight| in_flight.release(client.request, &mut process.totals));
        if released.is_some() {
            self.answer(node, client, response);
        } else if self
            .process_mut(node)
            .connections
            .contains_key(&client.connection)
        {
            let result = Err(format!("{node} answered {client:?} twice, now with {response:?}"));
            self.check_invariant("one answer", result);
        }
    }

    fn answer(&mut self, node: NodeId, client: ClientRef, response: Result<Response, Error>) {
        let Some(&session) = self.process_mut(node).connections.get(&client.connection) else {
            return;
        };
        let frame = ResponseFrame {
            id: client.request,
            response,
        };
        let mut bytes = BytesMut::new();
        frame::encode(&frame, MAX_CLIENT_FRAME, &mut bytes).expect("simulated values are small");
        self.send_to_client(session, bytes.freeze());
    }
}
