//! A cluster's control plane in a test tube: node and control roles on every node, and a test in place of network, disks
//! and clocks.
//!
//! Time passes only in [`Lab::live`]; then each message takes half a millisecond. Disks answer at once unless they are held.
//! Data-plane roles are not there: what is served, and what is handed to a coordinator, is kept to be looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::api::{Request, Response};
use crate::bugs::Bugs;
use crate::control::Control;
use crate::error::Error;
use crate::files::{FileDone, FileTask};
use crate::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
use crate::instance::Instance;
use crate::keyspace::Keyspace;
use crate::message::{Header, Message};
use crate::placement::Placement;
use crate::raft::settings::Timing;
use crate::ring::RingSettings;
use crate::role::{Address, ClientRef, Effect, Event, Rng, Role, RoleId, Spec, Surroundings, rng_from_seed};
use crate::store::Priority;
use crate::telemetry::TimelineEvent;
use crate::time::{Instant, Now, WallTime};
use crate::topology::{Member, Topology};
use disk::Disk;

mod disk;

const EPOCH: u64 = 1_700_000_000_000_000;
const LATENCY: Duration = Duration::from_micros(500);

/// Something that a test may want to see.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A message reached a role of another node.
    Delivered(Address, Address, Message),
    /// A request was answered.
    Reply(u64, Result<Response, Error>),
    /// A request was handed to a coordinator.
    Relayed(NodeId, RoleId, u64),
    /// A timeline event.
    Emitted(NodeId, TimelineEvent),
}

/// A node that runs.
struct Process {
    roles: BTreeMap<RoleId, (Instance, Rng)>,
    timers: BTreeMap<(RoleId, u64), Instant>,
    mailbox: VecDeque<(RoleId, Event)>,
    alive: BTreeSet<NodeId>,
}

/// A node.
pub(super) struct Machine {
    process: Option<Process>,
    pub(super) disk: Disk,
    boots: u64,
    /// As the node role wants them served.
    pub(super) served: BTreeMap<KeyspaceId, Keyspace>,
    /// Added to the ports of the addresses that it is started with.
    pub(super) port: u16,
}

/// The cluster.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    /// By arrival.
    wire: BTreeMap<(Instant, u64), (Address, Address, Header, Message)>,
    sent: u64,
    /// What desks say to each other comes again after this time.
    pub(super) repeat: Option<Duration>,
    /// Messages of these pairs are lost.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) happenings: Vec<Happening>,
    pub(super) operations: u64,
    seed: u64,
}

impl Lab {
    /// A cluster of which no node runs.
    pub(super) fn stopped(nodes: u16, seed: u64) -> Self {
        let machine = |number| {
            let machine = Machine {
                process: None,
                disk: Disk::default(),
                boots: 0,
                served: BTreeMap::new(),
                port: 0,
            };
            (NodeId(number), machine)
        };
        Lab {
            now: Instant(10_000_000),
            machines: (1..=nodes).map(machine).collect(),
            wire: BTreeMap::new(),
            sent: 0,
            repeat: None,
            cut: BTreeSet::new(),
            happenings: Vec::new(),
            operations: 0,
            seed,
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("a node of the cluster")
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.machines[&node].process.is_some()
    }

    /// The control role of a node that runs.
    pub(super) fn control(&self, node: NodeId) -> Option<&Control> {
        match self.machines[&node]
            .process
            .as_ref()?
            .roles
            .get(&RoleId::Control)?
        {
            (Instance::Control(control), _) => Some(control),
            _ => None,
        }
    }

    /// The members with the addresses that are true now.
    fn topology(&self) -> Topology {
        let member = |(node, machine): (&NodeId, &Machine)| Member {
            id: *node,
            peer_address: format!("{node}:{}", 100 + machine.port),
            client_address: format!("{node}:{}", 200 + machine.port),
            http_address: format!("{node}:{}", 300 + machine.port),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        };
        let ring = RingSettings {
            vnodes: 4,
            ..RingSettings::default()
        };
        let members = self.machines.iter().map(member).collect();
        Topology::new(ClusterId(7), 1, members, ring).expect("distinct members")
    }

    fn surroundings(&self, node: NodeId, alive: BTreeSet<NodeId>) -> Surroundings {
        Surroundings {
            replica: ReplicaId::new(node, 0xd1),
            placement: Placement::new(self.topology()).expect("a ring of small numbers"),
            alive,
            raft: Timing::default(),
            bugs: Bugs::default(),
        }
    }

    // ---- processes ----

    /// A node starts, with links to all that run and are not cut off.
    pub(super) fn start(&mut self, node: NodeId) {
        assert!(!self.is_up(node), "{node} runs already");
        let machine = self.machine(node);
        machine.boots += 1;
        machine.served.clear();
        machine.process = Some(Process {
            roles: BTreeMap::new(),
            timers: BTreeMap::new(),
            mailbox: VecDeque::new(),
            alive: [node].into(),
        });
        let instance = Instance::node(&self.surroundings(node, [node].into()));
        self.host(node, RoleId::Node, instance);
        self.settle();
        let others = self
            .nodes()
            .into_iter()
            .filter(|other| *other != node && self.is_up(*other));
        for other in others.collect::<Vec<_>>() {
            if !self.cut.contains(&(node, other)) && !self.cut.contains(&(other, node)) {
                self.link(node, other, true);
                self.link(other, node, true);
            }
        }
    }

    /// A process ends at once. What its disk was asked for and has not answered is lost.
    pub(super) fn crash(&mut self, node: NodeId) {
        let machine = self.machine(node);
        machine.process = None;
        machine.disk.flights.clear();
        machine.disk.late.clear();
        self.wire.retain(|_, (_, to, ..)| to.node != node);
        for other in self.nodes() {
            if other != node && self.is_up(other) {
                self.link(other, node, false);
            }
        }
    }

    /// The link from one node to another comes up or breaks, as the first one sees it.
    pub(super) fn link(&mut self, from: NodeId, to: NodeId, up: bool) {
        let Some(process) = &mut self.machine(from).process else {
            return;
        };
        let news = if up {
            process.alive.insert(to)
        } else {
            process.alive.remove(&to)
        };
        if news {
            self.input(from, RoleId::Control, Event::Peer { node: to, up });
        }
    }

    fn host(&mut self, node: NodeId, role: RoleId, instance: Instance) {
        let seed = self.seed.wrapping_mul(31) ^ u64::from(node.0) << 32 ^ self.machines[&node].boots;
        let process = self.machine(node).process.as_mut().expect("it runs");
        process.roles.insert(role, (instance, rng_from_seed(seed)));
        process.mailbox.push_back((role, Event::Start));
    }

    fn reconcile(&mut self, node: NodeId, specs: Vec<Spec>) {
        let surroundings = {
            let process = self.machines[&node].process.as_ref().expect("it runs");
            self.surroundings(node, process.alive.clone())
        };
        let mut served = BTreeMap::new();
        for spec in specs {
            match &spec {
                Spec::Quorum(keyspace) | Spec::Consensus(keyspace) => {
                    served.insert(keyspace.id, keyspace.clone());
                }
                Spec::Control if self.control(node).is_none() => {
                    for (role, instance) in Instance::create(&spec, &surroundings).expect("it fits") {
                        self.host(node, role, instance);
                    }
                }
                Spec::Control => {}
            }
        }
        self.machine(node).served = served;
    }

    // ---- clients ----

    /// A client asks. Gives the number that the reply will carry.
    pub(super) fn ask(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64 {
        self.operations += 1;
        let operation = self.operations;
        let header = Header {
            generation: 0,
            request: operation,
            deadline: self.now + timeout,
            trace: None,
        };
        let client = ClientRef {
            connection: 1,
            request: operation,
        };
        let event = Event::Request {
            client,
            header,
            request,
        };
        self.input(node, RoleId::Control, event);
        operation
    }

    // ---- disks ----

    /// The disk does as many of the things that it was asked for.
    pub(super) fn persist(&mut self, node: NodeId, count: usize) {
        for _ in 0..count {
            let Some((role, token, ops)) = self.machine(node).disk.flights.pop_front() else {
                return;
            };
            let event = self.machine(node).disk.perform(token, ops);
            self.input(node, role, event);
        }
    }

    // ---- time ----

    /// Lets time pass.
    pub(super) fn live(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let arrival = self.wire.keys().next().copied();
            let timer = self.next_timer();
            match (arrival, timer) {
                (Some((at, number)), timer) if at <= until && timer.is_none_or(|(due, ..)| at <= due) => {
                    self.now = self.now.max(at);
                    let (from, to, header, message) =
                        self.wire.remove(&(at, number)).expect("it was just found");
                    self.arrive(from, to, header, message);
                }
                (_, Some((at, node, role, id))) if at <= until => {
                    self.now = self.now.max(at);
                    let process = self.machine(node).process.as_mut().expect("it has a timer");
                    process.timers.remove(&(role, id));
                    self.input(node, role, Event::Timer { id });
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn next_timer(&self) -> Option<(Instant, NodeId, RoleId, u64)> {
        let machines = self.machines.iter();
        let timers = machines.filter_map(|(node, machine)| Some((node, machine.process.as_ref()?)));
        let timers = timers.flat_map(|(node, process)| {
            let timers = process.timers.iter();
            timers.map(|((role, id), at)| (*at, *node, *role, *id))
        });
        timers.min()
    }

    fn arrive(&mut self, from: Address, to: Address, header: Header, message: Message) {
        if !self.is_up(to.node) || self.cut.contains(&(from.node, to.node)) || header.deadline <= self.now {
            return;
        }
        self.happenings
            .push(Happening::Delivered(from, to, message.clone()));
        let bytes = postcard::to_stdvec(&message).expect("messages can be encoded");
        let event = Event::Message {
            from,
            header,
            message: postcard::from_bytes(&bytes).expect("and decoded"),
        };
        self.input(to.node, to.role, event);
    }

    // ---- driving the roles ----

    fn input(&mut self, node: NodeId, role: RoleId, event: Event) {
        if let Some(process) = &mut self.machine(node).process {
            process.mailbox.push_back((role, event));
            self.settle();
        }
    }

    fn settle(&mut self) {
        for node in self.nodes() {
            while let Some(process) = &mut self.machine(node).process
                && let Some((role, event)) = process.mailbox.pop_front()
            {
                let now = Now {
                    instant: self.now,
                    wall: WallTime(EPOCH + self.now.0),
                };
                let process = self.machine(node).process.as_mut().expect("it runs");
                let mut effects = Vec::new();
                if let Some((instance, rng)) = process.roles.get_mut(&role) {
                    instance.handle(now, rng, event, &mut effects);
                }
                for effect in effects {
                    self.perform(Address { node, role }, effect);
                }
            }
        }
    }

    fn perform(&mut self, from: Address, effect: Effect) {
        let node = from.node;
        match effect {
            Effect::Send { to, header, message } if to.node == node => {
                let event = Event::Message {
                    from,
                    header,
                    message,
                };
                let process = self.machine(node).process.as_mut().expect("it runs");
                process.mailbox.push_back((to.role, event));
            }
            Effect::Send { to, header, message } => {
                let process = self.machines[&node].process.as_ref().expect("it runs");
                if process.alive.contains(&to.node) {
                    let again = self.repeat.filter(|_| !matches!(message, Message::Raft { .. }));
                    let times = std::iter::once(LATENCY).chain(again.map(|again| LATENCY + again));
                    for time in times {
                        self.sent += 1;
                        let key = (self.now + time, self.sent);
                        self.wire.insert(key, (from, to, header, message.clone()));
                    }
                }
            }
            Effect::Reply { client, response } => {
                self.happenings.push(Happening::Reply(client.request, response));
            }
            Effect::Relay { to, client, .. } => {
                self.happenings.push(Happening::Relayed(node, to, client.request));
            }
            Effect::Emit(event) => self.happenings.push(Happening::Emitted(node, event)),
            Effect::Persist { token, priority, ops } => {
                let disk = &mut self.machine(node).disk;
                if priority == Priority::Urgent {
                    disk.catch_up();
                }
                // One without operations only waits for those before it.
                if priority == Priority::Bulk
                    && !ops.is_empty()
                    && let Some(slices) = &mut disk.slices
                {
                    match slices.checked_sub(1) {
                        Some(left) => *slices = left,
                        None => return,
                    }
                }
                disk.flights.push_back((from.role, token, ops));
                if !disk.held {
                    let (role, token, ops) = disk.flights.pop_front().expect("just put there");
                    let event = disk.perform(token, ops);
                    let process = self.machine(node).process.as_mut().expect("it runs");
                    process.mailbox.push_back((role, event));
                }
            }
            Effect::Read { token, .. } if self.machines[&node].disk.slow == Some(token) => {}
            Effect::Read { token, query } => {
                let result = Ok(self.machines[&node].disk.read(&query));
                let process = self.machine(node).process.as_mut().expect("it runs");
                process
                    .mailbox
                    .push_back((from.role, Event::Read { token, result }));
            }
            Effect::SetTimer { id, at } => {
                let process = self.machine(node).process.as_mut().expect("it runs");
                process.timers.insert((from.role, id), at);
            }
            Effect::Reconcile(specs) => self.reconcile(node, specs),
            Effect::Files {
                token,
                task: FileTask::Keep { owner, number: None },
            } => {
                let machine = self.machine(node);
                machine.disk.files.remove(&owner);
                let result = Ok(FileDone::Kept);
                let process = machine.process.as_mut().expect("it runs");
                process
                    .mailbox
                    .push_back((from.role, Event::Files { token, result }));
            }
            Effect::Group(_) => {}
            other => panic!("the control plane does not ask for {other:?}"),
        }
    }
}
