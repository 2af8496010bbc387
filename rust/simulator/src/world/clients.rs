//! Simulated clients: the real client core, driven by a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_client::core::{
    CallOptions, ClientConfig, ClientCore, ClientEffect, ClientEvent, Outcome, operation_of,
};
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::level::Level;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::{PutItem, Request, Response};
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
    /// Likewise for operations on many keys, and for the parts of them: the numbers in the history.
    many: BTreeMap<u64, Vec<usize>>,
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
            many: BTreeMap::new(),
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

    /// The operations of a client's request, one for each key of it; none if the client made the request by itself.
    pub(super) fn operations_of_request(&self, client: u32, request: u64) -> Vec<OperationRef> {
        let Some((op, _)) = operation_of(request) else {
            return Vec::new();
        };
        let simulated = &self.clients[client as usize];
        let one = simulated.operations.get(&op).copied().into_iter();
        let many = simulated.many.get(&op).into_iter().flatten();
        one.chain(many.map(|number| OperationRef::Work(*number)))
            .collect()
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
        if !step.more.is_empty() {
            return self.invoke_many(client, step);
        }
        let Step {
            keyspace,
            action,
            level,
            options,
            ..
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
        let number = self.invoked(client, (keyspace, level), action);
        self.submit(client, request, options, OperationRef::Work(number));
    }

    /// Writes down that a client asks. Returns the operation's number.
    fn invoked(&mut self, client: u32, (keyspace, level): (KeyspaceId, Level), action: Action) -> usize {
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
        self.history.invoke(operation)
    }

    /// Invokes a request for many keys: puts, or gets. Each is an operation in the history.
    fn invoke_many(&mut self, client: u32, step: Step) {
        let Step {
            keyspace,
            action,
            more,
            level,
            options,
        } = step;
        let (mut items, mut keys, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for action in std::iter::once(action).chain(more) {
            match action.clone() {
                Action::Put { key, value, context } => items.push(PutItem { key, value, context }),
                Action::Get { key } => keys.push(key),
                other => panic!("there is no request for many of {other:?}"),
            }
            numbers.push(self.invoked(client, (keyspace, level), action));
        }
        let level = Some(level);
        let request = match items.is_empty() {
            true => Request::GetMany {
                keyspace,
                keys,
                level,
            },
            false => {
                assert!(keys.is_empty(), "puts and gets are not asked for together");
                Request::PutMany {
                    keyspace,
                    items,
                    level,
                    write_id: WriteId::default(),
                }
            }
        };
        let simulated = &mut self.clients[client as usize];
        simulated.many.insert(simulated.last_op + 1, numbers);
        self.submit_next(client, request, options);
    }

    fn submit(&mut self, client: u32, request: Request, options: CallOptions, reference: OperationRef) {
        let simulated = &mut self.clients[client as usize];
        simulated.operations.insert(simulated.last_op + 1, reference);
        self.submit_next(client, request, options);
    }

    fn submit_next(&mut self, client: u32, request: Request, options: CallOptions) {
        let simulated = &mut self.clients[client as usize];
        simulated.last_op += 1;
        let op = simulated.last_op;
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
        let numbers = simulated.many.get(&op).cloned();
        let who = format_args!("client {client}");
        self.event_log.record(self.now, who, "is told", &outcome.result);
        if let Some(numbers) = numbers {
            return self.completed_many(client, &numbers, outcome.result);
        }
        let reference = self.clients[client as usize].operations[&op];
        match reference {
            OperationRef::Creation(number) => {
                self.creations[number].1 = Some(outcome.result);
                if outcome.attempts > 1 {
                    self.retried.insert(number);
                }
            }
            OperationRef::Change(number) => self.changes[number].1 = Some(outcome.result),
            OperationRef::Work(number) => {
                let pause = self.worked(client, number, outcome.result);
                self.act_after(client, pause);
            }
        }
    }

    /// Each key of many has a result of its own, or that of the whole.
    fn completed_many(&mut self, client: u32, numbers: &[usize], result: Result<Response, Error>) {
        let results: Vec<Result<Response, Error>> = match result {
            Ok(Response::WrittenMany(all)) => all
                .into_iter()
                .map(|result| result.map(Response::Written))
                .collect(),
            Ok(Response::Entries(all)) => all
                .into_iter()
                .map(|result| result.map(Response::Entry))
                .collect(),
            Ok(other) => panic!("many keys were answered with {other:?}"),
            Err(error) => vec![Err(error); numbers.len()],
        };
        assert_eq!(results.len(), numbers.len(), "each key has a result");
        let mut pause = None;
        for (number, result) in numbers.iter().zip(results) {
            pause = self.worked(client, *number, result);
        }
        self.act_after(client, pause);
    }

    /// An operation of a workload is over. How long its client rests, if it goes on.
    fn worked(&mut self, client: u32, number: usize, result: Result<Response, Error>) -> Option<Duration> {
        self.history.complete(number, self.now, result);
        self.observe(Observation::Completed { operation: number });
        let operation = &self.history.operations()[number];
        let workload = self.clients[client as usize].workload.as_mut();
        workload.map(|workload| workload.completed(operation))
    }

    fn act_after(&mut self, client: u32, pause: Option<Duration>) {
        if let Some(pause) = pause {
            self.queue.push(self.now + pause, QueuedEvent::Act { client });
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
        let simulated = &mut self.clients[client as usize];
        let effects = simulated.core.handle(now, event);
        for (part, many, places) in simulated.core.role().parts() {
            let numbers = &simulated.many[&many];
            let of_part = places.iter().map(|place| numbers[*place]).collect();
            // One that was there before is still the same.
            simulated.many.insert(part, of_part);
        }
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
