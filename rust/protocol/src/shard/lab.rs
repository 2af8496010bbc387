//! A consensus keyspace in a test tube: its shards and gates on every node, and a test in place of network, disks and clocks.
//!
//! Time passes only in [`Lab::live`]. In fair [`Weather`] each message takes half a millisecond and disks answer at once,
//! so that a person can follow; in foul weather everything takes as long as a seed wants it to, and messages get lost or
//! come twice. Every message goes through its encoded form.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand_core::Rng as _;

use crate::api::{Request, Response};
use crate::bugs::Bugs;
use crate::error::Error;
use crate::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
use crate::instance::Instance;
use crate::keyspace::{Group, Keyspace, KeyspaceSettings};
use crate::message::{Header, Message};
use crate::placement::Placement;
use crate::raft::settings::Settings;
use crate::raft::types::GroupId;
use crate::ring::RingSettings;
use crate::role::{
    Address, ClientRef, Effect, Event, Query, Rng, Role, RoleId, Rows, Surroundings, rng_from_seed,
};
use crate::shard::Shard;
use crate::shard::gate::Gate;
use crate::telemetry::TimelineEvent;
use crate::time::{Instant, Now, WallTime};
use crate::topology::{Member, Topology};

mod agenda;
pub(super) mod disk;
mod driving;
pub(super) mod show;

use disk::Disk;

const EPOCH: u64 = 1_700_000_000_000_000;
/// The keyspace that all tests use.
pub(super) const KEYSPACE: KeyspaceId = KeyspaceId(1);

/// Something that a test may want to see.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A message reached a role of another node.
    Delivered(Address, Address, Message),
    /// A request was answered.
    Reply(u64, Result<Response, Error>),
    /// A timeline event.
    Emitted(NodeId, TimelineEvent),
}

/// How network and disks behave. Times are microseconds, from and to.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) latency: (u64, u64),
    /// Of a thousand messages so many are lost, and so many come twice.
    pub(super) lost: u64,
    pub(super) twice: u64,
    /// `None` is at once.
    pub(super) disk: Option<(u64, u64)>,
    /// How long until derived rows survive a crash.
    pub(super) settling: Option<(u64, u64)>,
}

impl Weather {
    pub(super) const FAIR: Weather = Weather {
        latency: (500, 500),
        lost: 0,
        twice: 0,
        disk: None,
        settling: None,
    };
}

/// How to set a cluster up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    /// The members of each group.
    pub(super) groups: Vec<Vec<NodeId>>,
    pub(super) settings: Settings,
    pub(super) bugs: Bugs,
    pub(super) weather: Weather,
    pub(super) seed: u64,
}

impl Setup {
    /// One group on the first `members` of so many nodes.
    pub(super) fn of(nodes: u16, members: u16) -> Self {
        Setup {
            nodes,
            groups: vec![(1..=members).map(NodeId).collect()],
            settings: Settings::default(),
            bugs: Bugs::default(),
            weather: Weather::FAIR,
            seed: 1,
        }
    }
}

/// What is to happen on a node, if it has not crashed by then.
#[derive(Clone)]
enum Due {
    Arrive(Address, RoleId, Header, Message),
    Sync,
    Read(RoleId, u64, Query, Option<Rows>),
    Settle,
    File(u64),
    Link(NodeId, bool),
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
    /// Its disk answers in order.
    syncs_at: Instant,
    /// Owners of files of which a step is planned.
    filing: BTreeSet<u64>,
    pub(super) skew_micros: i64,
}

/// The cluster.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) keyspace: Keyspace,
    setup: Setup,
    rng: Rng,
    /// What is to happen, on which node, in which of its lives (any, for messages).
    agenda: BTreeMap<(Instant, u64), (NodeId, Option<u64>, Due)>,
    number: u64,
    /// What gates and servers say to each other comes again after this time.
    pub(super) repeat: Option<Duration>,
    /// Messages of these pairs are lost.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) happenings: Vec<Happening>,
    pub(super) operations: u64,
}

impl Lab {
    /// A cluster of which no node runs.
    pub(super) fn stopped(setup: Setup) -> Self {
        let machine = |number| {
            let machine = Machine {
                process: None,
                disk: Disk::default(),
                boots: 0,
                syncs_at: Instant(0),
                filing: BTreeSet::new(),
                skew_micros: 0,
            };
            (NodeId(number), machine)
        };
        let group = |(number, members): (u32, &Vec<NodeId>)| Group {
            id: GroupId(number),
            members: members.clone(),
        };
        let mut settings = KeyspaceSettings::consensus("users", setup.groups[0].len() as u8);
        settings.shards = setup.groups.len() as u16;
        Lab {
            now: Instant(10_000_000),
            machines: (1..=setup.nodes).map(machine).collect(),
            keyspace: Keyspace {
                id: KEYSPACE,
                settings,
                groups: (2..).zip(&setup.groups).map(group).collect(),
            },
            rng: rng_from_seed(setup.seed),
            setup,
            agenda: BTreeMap::new(),
            number: 0,
            repeat: None,
            cut: BTreeSet::new(),
            happenings: Vec::new(),
            operations: 0,
        }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn groups(&self) -> Vec<GroupId> {
        self.keyspace.groups.iter().map(|group| group.id).collect()
    }

    pub(super) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("a node of the cluster")
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.machines[&node].process.is_some()
    }

    pub(super) fn weather(&mut self) -> &mut Weather {
        &mut self.setup.weather
    }

    /// A node's server of a group, if it runs.
    pub(super) fn shard(&self, node: NodeId, group: GroupId) -> Option<&Shard> {
        let roles = &self.machines[&node].process.as_ref()?.roles;
        match roles.get(&RoleId::Shard(group))? {
            (Instance::Shard(shard), _) => Some(shard),
            _ => None,
        }
    }

    /// A node's gate, if it runs.
    pub(super) fn gate(&self, node: NodeId) -> Option<&Gate> {
        let roles = &self.machines[&node].process.as_ref()?.roles;
        match roles.get(&RoleId::Gate(KEYSPACE))? {
            (Instance::Gate(gate), _) => Some(gate),
            _ => None,
        }
    }

    fn surroundings(&self, node: NodeId) -> Surroundings {
        let member = |id: &NodeId| Member {
            id: *id,
            peer_address: String::new(),
            client_address: String::new(),
            http_address: String::new(),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        };
        let ring = RingSettings {
            vnodes: 4,
            ..RingSettings::default()
        };
        let members = self.machines.keys().map(member).collect();
        let topology = Topology::new(ClusterId(7), 1, members, ring).expect("distinct members");
        Surroundings {
            replica: ReplicaId::new(node, 0xd1),
            placement: Placement::new(topology).expect("a ring of small numbers"),
            alive: [node].into(),
            bugs: self.setup.bugs,
            raft: self.setup.settings.timing,
        }
    }

    fn draw(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_micros(from + self.rng.next_u64() % (to - from + 1))
    }

    fn chance(&mut self, of_a_thousand: u64) -> bool {
        self.rng.next_u64() % 1000 < of_a_thousand
    }

    // ---- processes ----

    /// A node starts with what its disk has, and with links to all that run and are not cut off.
    pub(super) fn start(&mut self, node: NodeId) {
        assert!(!self.is_up(node), "{node} runs already");
        let machine = self.machine(node);
        machine.boots += 1;
        machine.syncs_at = Instant(0);
        machine.filing.clear();
        let seed = (u64::from(node.0) << 32) ^ machine.boots ^ self.setup.seed << 40;
        let surroundings = self.surroundings(node);
        let mut roles = BTreeMap::new();
        let gate = Instance::Gate(Gate::new(&self.keyspace, &surroundings));
        roles.insert(RoleId::Gate(KEYSPACE), (gate, rng_from_seed(seed)));
        for group in self.groups() {
            let bugs = surroundings.bugs.raft;
            if let Some(mut shard) = Shard::new(&self.keyspace, group, &surroundings, bugs) {
                shard.setup.settings = Settings {
                    snapshots: shard.setup.settings.snapshots,
                    ages: shard.setup.settings.ages,
                    ..self.setup.settings
                };
                let rng = rng_from_seed(seed ^ u64::from(group.0) << 20);
                roles.insert(RoleId::Shard(group), (Instance::Shard(Box::new(shard)), rng));
            }
        }
        let mailbox = roles.keys().map(|role| (*role, Event::Start)).collect();
        self.machine(node).process = Some(Process {
            roles,
            timers: BTreeMap::new(),
            mailbox,
            alive: [node].into(),
        });
        self.settle();
        for other in self.nodes() {
            let apart = self.cut.contains(&(node, other)) || self.cut.contains(&(other, node));
            if other != node && self.is_up(other) && !apart {
                self.link(node, other, true);
                self.link(other, node, true);
            }
        }
    }

    /// A process ends at once. Of what its disk was asked for and has not answered, some may be there.
    pub(super) fn crash(&mut self, node: NodeId, synced: usize, settled: usize) {
        let machine = self.machine(node);
        machine.process = None;
        machine.disk.crash(synced, settled);
        for other in self.nodes() {
            if other != node && self.is_up(other) {
                match self.setup.weather.disk {
                    None => self.link(other, node, false),
                    Some(_) => {
                        let after = self.draw((0, 100_000));
                        let boot = self.machines[&other].boots;
                        self.plan(after, other, Some(boot), Due::Link(node, false));
                    }
                }
            }
        }
    }

    /// The keyspace was dropped, as a node has heard: its roles have a last event each, the servers first.
    pub(super) fn drop_keyspace(&mut self, node: NodeId) {
        let Some(process) = &self.machine(node).process else {
            return;
        };
        let roles: Vec<RoleId> = process.roles.keys().rev().copied().collect();
        for role in roles {
            self.input(node, role, Event::Dropped);
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
            let roles: Vec<RoleId> = process.roles.keys().copied().collect();
            for role in roles {
                self.input(from, role, Event::Peer { node: to, up });
            }
        }
    }

    // ---- clients ----

    /// A client asks. Gives the number that the reply will carry.
    pub(super) fn ask(&mut self, node: NodeId, group: GroupId, request: Request, timeout: Duration) -> u64 {
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
        let role = match self.shard(node, group) {
            Some(_) => RoleId::Shard(group),
            None => RoleId::Gate(KEYSPACE),
        };
        self.input(node, role, event);
        operation
    }

    // ---- disks ----

    /// The disk does everything that it was asked for.
    pub(super) fn catch_up(&mut self, node: NodeId) {
        while self.sync(node) {}
        self.settle_rows(node, usize::MAX);
        self.run_files(node);
    }

    fn sync(&mut self, node: NodeId) -> bool {
        let Some((flight, refused)) = self.machine(node).disk.sync() else {
            return false;
        };
        let token = flight.token;
        let event = match refused {
            true => Event::PersistRefused { token },
            false => Event::Persisted { tokens: vec![token] },
        };
        self.input(node, flight.role, event);
        true
    }

    fn settle_rows(&mut self, node: NodeId, count: usize) {
        for (role, token) in self.machine(node).disk.settle(count) {
            self.input(node, role, Event::Settled { tokens: vec![token] });
        }
    }

    pub(super) fn run_files(&mut self, node: NodeId) {
        while let Some(owner) = self.machines[&node].disk.owners().first().copied() {
            self.file_step(node, owner);
        }
    }

    /// A step of a file task; says whether more is to do.
    pub(super) fn file_step(&mut self, node: NodeId, owner: u64) -> bool {
        let (done, settled) = self.machine(node).disk.file_step(owner);
        for (role, token) in settled {
            self.input(node, role, Event::Settled { tokens: vec![token] });
        }
        if let Some((role, token, result)) = done {
            self.input(node, role, Event::Files { token, result });
        }
        self.machines[&node].disk.owners().contains(&owner)
    }
}
