//! An in-memory consensus keyspace: the adapter for a cluster of its shards and forwarders.

use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceSettings};
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Event, RoleId};
use quorate_raft::settings::Settings;
use quorate_raft::types::GroupId;
use quorate_role_testing::{Clients as _, Instance, Roles, Scene, surroundings, topology};
use quorate_testing::{Hosted, Profile};

use crate::shard::Shard;
use crate::shard::forwarder::Forwarder;

pub(super) mod show;

/// The keyspace that all tests use.
pub(super) const KEYSPACE: KeyspaceId = KeyspaceId(1);

/// The nodes of a keyspace.
pub(super) type Cluster = quorate_testing::Cluster<Roles<Shards>>;
/// An event of the trace.
pub(super) type TraceEvent = quorate_testing::TraceEvent<Roles<Shards>>;

/// The parameters of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    /// The members of each group.
    pub(super) groups: Vec<Vec<NodeId>>,
    pub(super) settings: Settings,
    pub(super) bugs: Bugs,
    pub(super) profile: Profile,
    pub(super) seed: u64,
}

impl Setup {
    /// One group on the first `members` of this many nodes.
    pub(super) fn of(nodes: u16, members: u16) -> Self {
        Setup {
            nodes,
            groups: vec![(1..=members).map(NodeId).collect()],
            settings: Settings::default(),
            bugs: Bugs::none(),
            profile: Profile::STEADY,
            seed: 1,
        }
    }

    /// A cluster without running nodes.
    pub(super) fn stopped(self) -> Cluster {
        let group = |(number, members): (u32, &Vec<NodeId>)| Group {
            id: GroupId(number),
            members: members.clone(),
        };
        let mut settings = KeyspaceSettings::consensus("users", self.groups[0].len() as u8);
        settings.shards = self.groups.len() as u16;
        let nodes = (1..=self.nodes).map(NodeId);
        let placement = Placement::new(topology(nodes.clone(), 4, |_| 0));
        let keyspace = Keyspace {
            id: KEYSPACE,
            settings,
            groups: (2..).zip(&self.groups).map(group).collect(),
        };
        let (profile, seed) = (self.profile.clone(), self.seed);
        let scene = Shards {
            keyspace,
            placement: placement.expect("a ring of small numbers"),
            setup: self,
        };
        Cluster::new(Roles(scene), nodes, profile, seed, 10_000_000)
    }
}

/// The roles of one keyspace.
pub(super) struct Shards {
    pub(super) keyspace: Keyspace,
    placement: Placement,
    setup: Setup,
}

impl Scene for Shards {
    type Role = crate::Instance;

    const SESSIONS: bool = false;

    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Roles<Self>>> {
        let Setup {
            settings, bugs, seed, ..
        } = &self.setup;
        let seed = (u64::from(node.0) << 32) ^ boot ^ seed << 40;
        let surroundings = surroundings(node, self.placement.clone(), settings.timing, *bugs);
        let forwarder = Hosted {
            role: RoleId::Forwarder(KEYSPACE),
            seed,
            instance: Instance::Role(crate::Instance::Forwarder(Forwarder::new(
                &self.keyspace,
                &surroundings,
            ))),
        };
        let shard = |group: &Group| {
            let mut shard = Shard::new(&self.keyspace, group.id, &surroundings)?;
            shard.setup.settings = Settings {
                snapshots: shard.setup.settings.snapshots,
                track_staleness: shard.setup.settings.track_staleness,
                ..*settings
            };
            Some(Hosted {
                role: RoleId::Shard(group.id),
                seed: seed ^ u64::from(group.id.0) << 20,
                instance: Instance::Role(crate::Instance::Shard(Box::new(shard))),
            })
        };
        let shards = self.keyspace.groups.iter().filter_map(shard);
        [forwarder].into_iter().chain(shards).collect()
    }
}

/// What tests do with a keyspace.
pub(super) trait Consensus {
    fn keyspace(&self) -> &Keyspace;
    fn groups(&self) -> Vec<GroupId>;
    /// A node's server of a group, if it runs.
    fn shard(&self, node: NodeId, group: GroupId) -> Option<&Shard>;
    /// A node's forwarder, if it runs.
    fn forwarder(&self, node: NodeId) -> Option<&Forwarder>;
    /// A client sends a request. Returns the number of the operation.
    fn ask(&mut self, node: NodeId, group: GroupId, request: Request, timeout: Duration) -> u64;
    /// A node learns that the keyspace was dropped: its roles get a last event, the servers first.
    fn drop_keyspace(&mut self, node: NodeId);
}

impl Consensus for Cluster {
    fn keyspace(&self) -> &Keyspace {
        &self.protocol.0.keyspace
    }

    fn groups(&self) -> Vec<GroupId> {
        self.keyspace().groups.iter().map(|group| group.id).collect()
    }

    fn shard(&self, node: NodeId, group: GroupId) -> Option<&Shard> {
        match self.instance(node, RoleId::Shard(group))? {
            Instance::Role(crate::Instance::Shard(shard)) => Some(shard),
            _ => None,
        }
    }

    fn forwarder(&self, node: NodeId) -> Option<&Forwarder> {
        match self.instance(node, RoleId::Forwarder(KEYSPACE))? {
            Instance::Role(crate::Instance::Forwarder(forwarder)) => Some(forwarder),
            _ => None,
        }
    }

    fn ask(&mut self, node: NodeId, group: GroupId, request: Request, timeout: Duration) -> u64 {
        let role = match self.shard(node, group) {
            Some(_) => RoleId::Shard(group),
            None => RoleId::Forwarder(KEYSPACE),
        };
        self.send_request(node, role, request, timeout)
    }

    fn drop_keyspace(&mut self, node: NodeId) {
        let process = self.nodes[&node].process();
        let roles: Vec<RoleId> = process.iter().flat_map(|process| process.roles().rev()).collect();
        for role in roles {
            self.input(node, role, Event::Dropped);
        }
    }
}
