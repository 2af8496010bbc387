//! An in-memory control plane: the adapter for a cluster of node and control roles.
//!
//! There are no data-plane roles: served keyspaces, and requests passed to a coordinator, are recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bugs;
use quorate_core::files::FileId;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::counter_row;
use quorate_core::store::{JournalOp, StateWrite, Table};
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::node::NodeRole;
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{RoleId, Spec, Surroundings};
use quorate_raft::settings::Timing;
use quorate_raft::types::GroupId;
use quorate_role_testing::{Clients as _, Instance, Roles, Scene, surroundings, topology};
use quorate_testing::memory::Memory;
use quorate_testing::node::Process;
use quorate_testing::{Hosted, Profile};

use crate::control::known::known_key;
use crate::control::{CONTROL_GROUP, Control};

/// The nodes of a cluster.
pub(super) type Cluster = quorate_testing::Cluster<Roles<Plane>>;
/// An event of the trace.
pub(super) type TraceEvent = quorate_testing::TraceEvent<Roles<Plane>>;

/// A cluster without running nodes.
pub(super) fn stopped(nodes: u16, seed: u64, bugs: Bugs) -> Cluster {
    let nodes = (1..=nodes).map(NodeId);
    let plane = Plane {
        ports: nodes.clone().map(|node| (node, 0)).collect(),
        served: BTreeMap::new(),
        seed,
        bugs,
    };
    let mut cluster = Cluster::new(Roles(plane), nodes, Profile::STEADY, seed, 10_000_000);
    for node in cluster.nodes.values_mut() {
        node.disk.reclaims = true;
    }
    cluster
}

/// The roles of the control plane.
pub(super) struct Plane {
    /// Added to the ports of each node's initial addresses.
    pub(super) ports: BTreeMap<NodeId, u16>,
    /// The keyspaces that each node role serves.
    pub(super) served: BTreeMap<NodeId, BTreeMap<KeyspaceId, Keyspace>>,
    seed: u64,
    bugs: Bugs,
}

impl Plane {
    fn surroundings(&self, node: NodeId) -> Surroundings {
        let topology = topology(self.ports.keys().copied(), 4, |node| self.ports[&node]);
        let placement = Placement::new(topology).expect("a ring of small numbers");
        surroundings(node, placement, Timing::default(), self.bugs)
    }

    fn hosted(
        &self,
        node: NodeId,
        boot: u64,
        role: RoleId,
        instance: Instance<crate::Instance>,
    ) -> Hosted<Roles<Self>> {
        let seed = self.seed.wrapping_mul(31) ^ u64::from(node.0) << 32 ^ boot;
        Hosted { role, seed, instance }
    }
}

impl Scene for Plane {
    type Role = crate::Instance;

    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Roles<Self>>> {
        self.served.insert(node, BTreeMap::new());
        let instance = Instance::Node(NodeRole::new(&self.surroundings(node)));
        vec![self.hosted(node, boot, RoleId::Node, instance)]
    }

    fn reconcile(
        &mut self,
        node: NodeId,
        specs: Vec<Spec>,
        process: &Process<Roles<Self>>,
    ) -> Vec<Hosted<Roles<Self>>> {
        let mut surroundings = self.surroundings(node);
        surroundings.alive = process.alive().clone();
        let mut hosted = Vec::new();
        let mut served = BTreeMap::new();
        for spec in specs {
            match &spec {
                Spec::Quorum(keyspace) | Spec::Consensus(keyspace) => {
                    served.insert(keyspace.id, keyspace.clone());
                }
                Spec::Control => {
                    let (role, instance) = crate::Instance::control(&surroundings);
                    hosted.push(self.hosted(node, process.boot(), role, Instance::Role(instance)));
                }
            }
        }
        self.served.insert(node, served);
        hosted
    }

    fn hosts(role: RoleId) -> bool {
        matches!(role, RoleId::Node | RoleId::Control)
    }
}

/// What tests do with a control plane.
pub(super) trait ControlPlane {
    /// The control role of a running node.
    fn control(&self, node: NodeId) -> Option<&Control>;
    /// A client sends a request. Returns the number of the operation.
    fn ask(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64;
}

impl ControlPlane for Cluster {
    fn control(&self, node: NodeId) -> Option<&Control> {
        match self.instance(node, RoleId::Control)? {
            Instance::Role(crate::Instance::Control(control)) => Some(control),
            _ => None,
        }
    }

    fn ask(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64 {
        self.send_request(node, RoleId::Control, request, timeout)
    }
}

/// Leaves the data of a dropped keyspace and its groups on a disk: this many rows and entries, a file each,
/// and their small states.
pub(super) fn litter(store: &mut Memory, keyspace: KeyspaceId, groups: &[GroupId], rows: u32, entries: u64) {
    let row = |table, owner: u32, number: u32| StateWrite {
        table,
        key: Bytes::from([owner.to_be_bytes(), number.to_be_bytes()].concat()),
        value: Some(Bytes::from_static(b"row")),
    };
    for number in 0..rows {
        let mut rows = vec![
            row(Table::Records, keyspace.0, number),
            row(Table::TokenIndex, keyspace.0, number),
        ];
        rows.extend(groups.iter().map(|group| row(Table::Groups, group.0, number)));
        store.contents.perform(JournalOp::Write(rows));
    }
    let state = Bytes::from_static(b"state");
    store.contents.perform(JournalOp::Write(vec![StateWrite {
        table: Table::Meta,
        key: counter_row(keyspace),
        value: Some(state.clone()),
    }]));
    for group in groups {
        for position in 1..=entries {
            store.contents.perform(entry(*group, position));
        }
        for key in [group.hard_state_key(), group.log_start_key()] {
            let value = state.clone();
            store.contents.perform(JournalOp::PutHard { key, value });
        }
        store.litter(FileId {
            owner: u64::from(group.0),
            number: 1,
        });
    }
}

/// An entry of a group's log.
pub(super) fn entry(group: GroupId, position: u64) -> JournalOp {
    JournalOp::Append {
        stream: group.log_stream(),
        position,
        bytes: Bytes::from_static(b"entry"),
    }
}

/// The remaining data, without the control plane's own: rows, entries, files, states.
pub(super) fn left(store: &Memory) -> [usize; 4] {
    let tables = [Table::Meta, Table::Records, Table::TokenIndex, Table::Groups];
    let rows = tables.map(|table| store.contents.rows_from(table, &[]).count());
    let own = [CONTROL_GROUP.log_stream(), CONTROL_GROUP.snapshot_stream()];
    let streams = store.contents.streams();
    let entries = streams.filter(|(stream, _)| !own.contains(stream));
    let own = [
        known_key(),
        CONTROL_GROUP.hard_state_key(),
        CONTROL_GROUP.log_start_key(),
    ];
    let states = store.contents.hard_states().filter(|key| !own.contains(key));
    [
        rows.iter().sum(),
        entries.map(|(_, count)| count).sum(),
        store.files().len(),
        states.count(),
    ]
}
