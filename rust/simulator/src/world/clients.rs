//! Simulated clients: the real client core, driven by a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_client::core::{
    CallOptions, ClientConfig, ClientCore, ClientEffect, ClientEvent, Outcome, operation_of,
};
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::{KeyspaceChange, KeyspaceSettings};
use quorate_versions::WriteId;

use super::{EPOCH_MICROS, QueuedEvent, World};
use crate::history::{Action, Operation};
use crate::names::OperationRef;
use crate::network::{Arrival, Endpoint, Host, SessionId, Side};
use crate::observation::Observation;
use crate::record::{Hosted, Recording};
use crate::workload::{Step, Workload};

/// The role of a client.
pub type ClientRole = ClientCore;

/// A client, its connections and operations.
pub(super) struct SimulatedClient {
    core: Hosted<ClientCore>,
    /// By the core's connection ids. `true` once established.
    connections: BTreeMap<u64, (SessionId, bool)>,
    set: u64,
    /// Its operations, including completed ones: a request may arrive late.
    operations: BTreeMap<u64, OperationRef>,
    in_flight: BTreeSet<u64>,
    last_op: u64,
    workload: Option<Workload>,
}

impl SimulatedClient {
    pub(super) fn into_recording(self) -> Option<Recording<ClientCore>> {
        self.core.into_recording()
    }
}

impl World {
    pub(super) fn start_client(&mut self, client: u32) {
        let mut endpoints: Vec<String> = self
            .placement
            .topology()
            .members
            .iter()
            .map(|member| member.client_address.clone())
            .collect();
        self.rng.shuffle(&mut endpoints);
        let core = ClientCore::new(ClientConfig::new(endpoints, self.rng.number()));
        let core = core.expect("a simulation has at least one node");
        self.clients.push(SimulatedClient {
            core: Hosted::new(core, self.rng.number(), self.config.record),
            connections: BTreeMap::new(),
            set: 0,
            operations: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            last_op: 0,
            workload: None,
        });
        self.with_network(|network, now, flights| {
            network.set_host(now, Endpoint::Client(client), Host::Serving, flights);
        });
        self.client_event(client, ClientEvent::Start);
    }

    // ---- operations of clients ----

    /// Creates a keyspace by a client; its number is the last among [`World::creations`].
    pub fn create_keyspace(&mut self, client: u32, settings: KeyspaceSettings, timeout: Duration) {
        let number = self.creations.len();
        self.creations.push((settings.clone(), None));
        self.submit(
            client,
            Request::CreateKeyspace(settings),
            CallOptions::timeout(timeout),
            OperationRef::Creation(number),
        );
    }

    /// Drops a keyspace by a client; its number is the last among [`World::changes`].
    pub fn drop_keyspace(&mut self, client: u32, name: &str, timeout: Duration) {
        let request = Request::DropKeyspace {
            name: name.to_owned(),
            // The client sets it.
            write_id: WriteId::default(),
        };
        self.change_keyspace(client, request, timeout);
    }

    /// Alters a keyspace by a client; its number is the last among [`World::changes`].
    pub fn alter_keyspace(&mut self, client: u32, name: &str, change: KeyspaceChange, timeout: Duration) {
        let request = Request::AlterKeyspace {
            name: name.to_owned(),
            change,
            write_id: WriteId::default(),
        };
        self.change_keyspace(client, request, timeout);
    }

    fn change_keyspace(&mut self, client: u32, request: Request, timeout: Duration) {
        let number = self.changes.len();
        self.changes.push((request.clone(), None));
        let options = CallOptions::timeout(timeout);
        self.submit(client, request, options, OperationRef::Change(number));
    }

    /// The operation of a client's request; `None` if the client made the request by itself.
    pub(super) fn operation_of_request(&self, client: u32, request: u64) -> Option<OperationRef> {
        let (op, _) = operation_of(request)?;
        self.clients[client as usize].operations.get(&op).copied()
    }

    /// Sets the workload of a client. Without a workload it stops after its pending operation.
    pub fn set_workload(&mut self, client: u32, workload: Option<Workload>) {
        let idle = self.clients[client as usize].workload.is_none();
        self.clients[client as usize].workload = workload;
        if idle {
            self.queue.push(self.now, QueuedEvent::Act { client });
        }
    }

    /// Starts the probing: from now on, all shards of existing keyspaces must respond.
    pub fn begin_probing(&mut self) {
        for node in self.nodes() {
            let Some(control) = self.control(node) else {
                continue;
            };
            let known: BTreeSet<KeyspaceId> = control
                .known()
                .keyspaces()
                .values()
                .map(|keyspace| keyspace.id)
                .collect();
            let gone = self.served.keys().filter(|id| !known.contains(id));
            self.gone.extend(gone.copied().collect::<Vec<_>>());
        }
        self.probing = Some(self.history.operations().len());
    }

    /// Starts the closing phase: from now on, all operations must succeed.
    pub fn begin_closing(&mut self) {
        self.closing = Some(self.history.operations().len());
    }

    /// Invokes an operation of a client. Its number in the history is the last one.
    pub fn invoke(&mut self, client: u32, step: Step) {
        let Step {
            keyspace,
            action,
            level,
            options,
        } = step;
        let request = match action.clone() {
            Action::Put { key, value, context } => {
                let write_id = WriteId {
                    client: 0,
                    sequence: 0,
                };
                Request::Put {
                    keyspace,
                    key,
                    value,
                    context,
                    level: Some(level),
                    write_id,
                }
            }
            Action::Get { key } => Request::Get {
                keyspace,
                key,
                level: Some(level),
            },
            Action::Shard(request) => request,
            Action::Scan { start, end, limit } => Request::Scan {
                keyspace,
                start,
                end,
                after_start: false,
                limit,
                level: Some(level),
            },
        };
        let operation = Operation {
            client,
            keyspace,
            action,
            level,
            invoked: self.now,
            completed: None,
        };
        self.event_log
            .record(self.now, format_args!("client {client}"), "invokes", &operation);
        let number = self.history.invoke(operation);
        self.submit(client, request, options, OperationRef::Work(number));
    }

    fn submit(&mut self, client: u32, request: Request, options: CallOptions, reference: OperationRef) {
        let simulated = &mut self.clients[client as usize];
        simulated.last_op += 1;
        let op = simulated.last_op;
        simulated.operations.insert(op, reference);
        simulated.in_flight.insert(op);
        self.client_event(client, ClientEvent::Submit { op, request, options });
    }

    /// A client invokes the next operation of its workload.
    pub(super) fn act(&mut self, client: u32) {
        if let Some(workload) = &mut self.clients[client as usize].workload {
            let step = workload.next_operation();
            self.invoke(client, step);
        }
    }

    fn completed(&mut self, client: u32, op: u64, outcome: Outcome) {
        let simulated = &mut self.clients[client as usize];
        assert!(
            simulated.in_flight.remove(&op),
            "operation {op} of client {client} completes twice"
        );
        let reference = simulated.operations[&op];
        let who = format_args!("client {client}");
        self.event_log.record(self.now, who, "is told", &outcome.result);
        match reference {
            OperationRef::Creation(number) => {
                self.creations[number].1 = Some(outcome.result);
                if outcome.attempts > 1 {
                    self.retried.insert(number);
                }
            }
            OperationRef::Change(number) => self.changes[number].1 = Some(outcome.result),
            OperationRef::Work(number) => {
                self.history.complete(number, self.now, outcome.result);
                self.observe(Observation::Completed { operation: number });
                let operation = &self.history.operations()[number];
                if let Some(workload) = &mut self.clients[client as usize].workload {
                    let pause = workload.completed(operation);
                    self.queue.push(self.now + pause, QueuedEvent::Act { client });
                }
            }
        }
    }

    // ---- the client's shell ----

    fn client_now(&self) -> Now {
        Now {
            instant: self.now,
            wall: WallTime(EPOCH_MICROS + self.now.0),
        }
    }

    fn client_event(&mut self, client: u32, event: ClientEvent) {
        let now = self.client_now();
        let effects = self.clients[client as usize].core.handle(now, event);
        for effect in effects {
            self.perform_client(client, effect);
        }
    }

    fn perform_client(&mut self, client: u32, effect: ClientEffect) {
        let from = Endpoint::Client(client);
        match effect {
            ClientEffect::Connect { connection, address } => {
                let node: Option<NodeId> = address.split(':').next().and_then(|name| name.parse().ok());
                let to = Endpoint::Node(node.expect("addresses name their nodes"));
                let session = self.with_network(|network, now, flights| network.dial(now, from, to, flights));
                self.clients[client as usize]
                    .connections
                    .insert(connection, (session, false));
            }
            ClientEffect::Send { connection, bytes } => {
                let Some(&(session, _)) = self.clients[client as usize].connections.get(&connection) else {
                    return;
                };
                self.event_log.record(
                    self.now,
                    format_args!("client {client}"),
                    "sends",
                    &(connection, &bytes),
                );
                self.with_network(|network, now, flights| {
                    network.send(now, session, Side::Dialler, bytes, flights)
                });
            }
            ClientEffect::Disconnect { connection } => {
                if let Some((session, _)) = self.clients[client as usize].connections.remove(&connection) {
                    self.with_network(|network, now, flights| {
                        network.end(now, session, Side::Dialler, flights)
                    });
                }
            }
            ClientEffect::Complete { op, outcome } => self.completed(client, op, outcome),
            ClientEffect::SetTimer { at } => self.set_client_timer(client, at),
            ClientEffect::Opened(_) | ClientEffect::Span(_) => {}
        }
    }

    fn set_client_timer(&mut self, client: u32, at: Instant) {
        let simulated = &mut self.clients[client as usize];
        simulated.set += 1;
        let set = simulated.set;
        self.queue
            .push(at.max(self.now), QueuedEvent::ClientTimer { client, set });
    }

    pub(super) fn client_timer(&mut self, client: u32, set: u64) {
        if self.clients[client as usize].set == set {
            self.client_event(client, ClientEvent::Timer);
        }
    }

    /// Something arrives at a client.
    pub(super) fn arrived_at_client(&mut self, client: u32, session: SessionId, arrival: Arrival) {
        let connections = &mut self.clients[client as usize].connections;
        let Some((&connection, entry)) = connections
            .iter_mut()
            .find(|(_, (carrier, _))| *carrier == session)
        else {
            return;
        };
        match arrival {
            Arrival::Opened => {
                entry.1 = true;
                self.client_event(client, ClientEvent::Connected { connection });
            }
            Arrival::Bytes(bytes) => {
                for bytes in self.pieces(&bytes) {
                    self.client_event(client, ClientEvent::Received { connection, bytes });
                }
            }
            Arrival::Ended => {
                // A socket does not report how much was sent. Before it was open, nothing was.
                let written = if entry.1 { u64::MAX } else { 0 };
                connections.remove(&connection);
                let error = Error::ConnectionLost("the connection ended".to_owned());
                self.client_event(
                    client,
                    ClientEvent::Disconnected {
                        connection,
                        written,
                        error,
                    },
                );
            }
            Arrival::Out | Arrival::Knock { .. } => {}
        }
    }
}
