//! The world: nodes, clients, network and disks, in one thread and virtual time.
//!
//! All future events are in one [event queue](crate::event_queue); [`World::step`] takes the next event and performs it,
//! which schedules further events. The time is that of the last event taken, so an idle hour costs nothing. All random
//! decisions come from the seed. So the same [`WorldConfig`] and the same calls give the same run, event by event, which
//! [`World::hash`] verifies.
//!
//! A simulated node runs the same code as a real one: the node role, and its role instances; a [`Link`] to every peer,
//! whose batches are sent as bytes; a commit queue in front of a disk; a listener for the client protocol. A simulated
//! client is a real `ClientCore`. Only the environment is simulated: time, network, disk, and crashes.
//!
//! ```text
//!              ClientCore            roles ⇄ mail ⇄ roles             Link
//!   clients ──── bytes ──── listener ──┘        │                      │ batches
//!                  └──────────── network ───────┼──── hello, sessions ─┘
//!                                             disk (commit queue, memory store)
//! ```

mod clients;
mod clock;
mod faults;
mod inspect;
pub(crate) mod listener;
mod machine;
mod peers;
mod queued_event;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
use quorate_protocol::link::Link;
use quorate_protocol::placement::{Placement, Preference};
use quorate_protocol::role::RoleId;
use quorate_protocol::topology::{Member, Topology};
use quorate_ring::RingSettings;
use quorate_roles::Instance;

use crate::control_log_model::ControlLogModel;
use crate::event_log::EventLog;
use crate::event_queue::EventQueue;
use crate::history::History;
use crate::log_model::LogModels;
use crate::names::Names;
use crate::network::{Conditions, Endpoint, Flight, Flights, MessageFaults, Network};
use crate::observation::{Invariant, Observation, Violation};
use crate::record::Recording;
use crate::rng::SimRng;
use crate::schedule::Fault;
use crate::write_model::WriteModel;

pub use clients::ClientRole;
use clients::SimulatedClient;
use machine::Machine;
use queued_event::QueuedEvent;

/// The wall clock at the beginning of every run: 2026-01-01, in microseconds.
const EPOCH_MICROS: u64 = 1_767_225_600_000_000;

/// The most events in the same microsecond: more indicate an endless loop.
const MOST_STEPS_NOW: u64 = 100_000;

/// The configuration of a world.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The seed of all random decisions.
    pub seed: u64,
    /// The number of nodes, from n1 on.
    pub nodes: u16,
    /// The number of clients.
    pub clients: u32,
    /// Tokens of each node; few, so that rings are cheap.
    pub vnodes: u16,
    /// Deliberate bugs of the roles.
    pub bugs: Bugs,
    /// Whether the inputs of all roles are recorded.
    pub record: bool,
    /// Whether all events are hashed.
    pub hash: bool,
    /// The number of last events to keep as text.
    pub keep_lines: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        WorldConfig {
            seed: 0,
            nodes: 5,
            clients: 4,
            vnodes: 16,
            bugs: Bugs::none(),
            record: false,
            hash: false,
            keep_lines: 0,
        }
    }
}

/// Recordings of all roles.
#[derive(Default)]
pub struct Recordings {
    /// Node, control, coordinator and replica roles.
    pub instances: Vec<(NodeId, RoleId, Recording<Instance>)>,
    /// Links, by node and peer.
    pub links: Vec<(NodeId, NodeId, Recording<Link>)>,
    /// Clients.
    pub clients: Vec<(u32, Recording<ClientRole>)>,
}

/// A keyspace that some node serves.
struct Served {
    keyspace: Keyspace,
    preference: Preference,
}

/// The creation of a keyspace by a client, and its result.
pub type Creation = (KeyspaceSettings, Option<Result<Response, Error>>);

/// Another change of a keyspace by a client (to alter or drop it), and its result.
pub type Changing = (Request, Option<Result<Response, Error>>);

/// The simulated world; see the module documentation.
pub struct World {
    config: WorldConfig,
    cluster: ClusterId,
    now: Instant,
    queue: EventQueue<QueuedEvent>,
    network: Network,
    machines: BTreeMap<NodeId, Machine>,
    clients: Vec<SimulatedClient>,
    placement: Placement,
    served: BTreeMap<KeyspaceId, Served>,
    rng: SimRng,
    message_faults: MessageFaults,
    history: History,
    write_model: WriteModel,
    log_models: LogModels,
    control_log_model: ControlLogModel,
    names: Names,
    /// Whether any record was corrupted.
    corrupted: bool,
    creations: Vec<Creation>,
    /// The creations with several attempts.
    retried: BTreeSet<usize>,
    changes: Vec<Changing>,
    /// Keyspaces that are no longer served.
    gone: BTreeSet<KeyspaceId>,
    /// The first operation of the probing of shards.
    probing: Option<usize>,
    /// The first operation of the closing phase.
    closing: Option<usize>,
    event_log: EventLog,
    invariants: Vec<Box<dyn Invariant<World> + Send>>,
    violation: Option<Violation>,
    recordings: Recordings,
    steps: u64,
    /// The number of events at the current time.
    steps_now: u64,
}

impl World {
    /// Creates a world in which all nodes start and all clients connect at time zero.
    ///
    /// # Panics
    /// If the configuration has no nodes or no tokens.
    pub fn new(config: WorldConfig, invariants: Vec<Box<dyn Invariant<World> + Send>>) -> Self {
        let seed = config.seed;
        let cluster = ClusterId::from_name(&format!("simulation {seed}"));
        let mut rng = SimRng::named(seed, "world");
        let nodes: Vec<NodeId> = (1..=config.nodes).map(NodeId).collect();
        let members = nodes.iter().map(|node| member(*node)).collect();
        let ring = RingSettings {
            vnodes: config.vnodes,
            ..RingSettings::default()
        };
        let placement = Topology::new(cluster, 1, members, ring).and_then(Placement::new);
        let placement = placement.expect("a simulation needs at least one node and one token for each");
        let machine = |node: &NodeId| {
            let replica = ReplicaId::new(*node, rng.number());
            (
                *node,
                Machine::new(*node, replica, SimRng::named(seed, &format!("disk of {node}"))),
            )
        };
        let machines = nodes.iter().map(machine).collect();
        let network = Network::new(SimRng::named(seed, "network"), Conditions::default());
        let event_log = EventLog::new(config.hash, config.keep_lines);
        let mut world = World {
            config,
            cluster,
            now: Instant(0),
            queue: EventQueue::default(),
            network,
            machines,
            clients: Vec::new(),
            placement,
            served: BTreeMap::new(),
            rng,
            message_faults: MessageFaults::default(),
            history: History::default(),
            write_model: WriteModel::default(),
            log_models: LogModels::default(),
            control_log_model: ControlLogModel::default(),
            names: Names::default(),
            corrupted: false,
            creations: Vec::new(),
            retried: BTreeSet::new(),
            changes: Vec::new(),
            gone: BTreeSet::new(),
            probing: None,
            closing: None,
            event_log,
            invariants,
            violation: None,
            recordings: Recordings::default(),
            steps: 0,
            steps_now: 0,
        };
        world.event_log.record(
            world.now,
            "world",
            "begins",
            &(seed, world.config.nodes, world.config.clients),
        );
        for node in nodes {
            world.start_node(node);
        }
        for client in 0..world.config.clients {
            world.start_client(client);
        }
        world
    }

    // ---- running ----

    /// Performs the next event. `false` if there is none, or an invariant is violated.
    pub fn step(&mut self) -> bool {
        if self.violation.is_some() {
            return false;
        }
        let Some((at, event)) = self.queue.pop() else {
            return false;
        };
        assert!(at >= self.now, "time runs backwards: {at:?} after {:?}", self.now);
        self.steps_now = if at > self.now { 0 } else { self.steps_now + 1 };
        if self.steps_now > MOST_STEPS_NOW {
            let what = format!("{MOST_STEPS_NOW} events at the same time; the next is {event:?}");
            self.check_invariant("time passes", Err(what));
            return false;
        }
        self.now = at;
        self.steps += 1;
        if let Some(machine) = event
            .node(&self.network)
            .and_then(|node| self.machines.get_mut(&node))
            && let Some(backlog) = &mut machine.paused
        {
            backlog.push(event);
            return true;
        }
        self.perform_event(event);
        true
    }

    /// Steps until `until` and sets the time to it, unless an invariant is violated.
    pub fn run_until(&mut self, until: Instant) {
        while self.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        if self.violation.is_none() {
            self.now = self.now.max(until);
        }
    }

    /// Steps until `done` or for `timeout`. Returns whether it was done.
    pub fn run_until_done(&mut self, timeout: Duration, done: impl Fn(&World) -> bool) -> bool {
        let until = self.now + timeout;
        while !done(self) {
            if self.violation.is_some() || self.queue.next_at().is_none_or(|at| at > until) {
                return false;
            }
            self.step();
        }
        true
    }

    /// Schedules a fault after `delay`.
    pub fn plan(&mut self, delay: Duration, fault: Fault) {
        self.queue.push(self.now + delay, QueuedEvent::Fault(fault));
    }

    /// Checks the invariants at the end of the run. Call it when the cluster is quiescent.
    pub fn finish(&mut self) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            let result = invariant.finish(self);
            self.check_invariant(invariant.name(), result);
        }
        self.invariants = invariants;
    }

    /// A flight lands.
    fn land(&mut self, flight: Flight) {
        let landed = self.with_network(|network, now, flights| network.land(now, flight, flights));
        let Some((session, _, endpoint, arrival)) = landed else {
            return;
        };
        match endpoint {
            Endpoint::Node(node) => self.arrived_at_node(node, session, arrival),
            Endpoint::Client(client) => self.arrived_at_client(client, session, arrival),
        }
    }

    /// Calls the network and schedules the resulting flights.
    fn with_network<R>(&mut self, call: impl FnOnce(&mut Network, Instant, &mut Flights) -> R) -> R {
        let mut flights = Flights::new();
        let result = call(&mut self.network, self.now, &mut flights);
        for (at, flight) in flights {
            self.queue.push(at, QueuedEvent::Flight(flight));
        }
        result
    }

    fn observe(&mut self, observation: Observation<'_>) {
        let mut invariants = std::mem::take(&mut self.invariants);
        for invariant in &mut invariants {
            let result = invariant.observe(self, observation);
            self.check_invariant(invariant.name(), result);
        }
        self.invariants = invariants;
    }

    /// Records the first violation.
    fn check_invariant(&mut self, invariant: &'static str, result: Result<(), String>) {
        if let Err(what) = result {
            self.violation.get_or_insert(Violation {
                invariant,
                at: self.now,
                what,
            });
        }
    }

    /// Ends all roles and returns their recordings, if enabled.
    pub fn into_recordings(mut self) -> Recordings {
        for node in self.nodes() {
            self.end_process(node);
        }
        for (number, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            self.recordings.clients.extend(
                client
                    .into_recording()
                    .map(|recording| (number as u32, recording)),
            );
        }
        self.recordings
    }
}

/// A member whose addresses contain its id.
fn member(node: NodeId) -> Member {
    Member {
        id: node,
        peer_address: format!("{node}:7400"),
        client_address: format!("{node}:7401"),
        http_address: format!("{node}:7402"),
        rack: "default".to_owned(),
        datacenter: "default".to_owned(),
    }
}
