//! The adapter of quorum keyspaces for the in-memory cluster: coordinators and replicas.
//!
//! There is no control role: the adapter sends the keyspaces to the node roles.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::{Key, record_key};
use quorate_core::store::{JournalOp, StateWrite, Table};
use quorate_core::time::Instant;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::Header;
use quorate_protocol::node::NodeRole;
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Event, RoleId, Spec, Surroundings};
use quorate_raft::settings::Timing;
use quorate_role_testing::{Clients as _, Instance, Roles, Scene, surroundings, topology};
use quorate_testing::node::Process;
use quorate_testing::{Hosted, Profile};
use quorate_versions::KeyState;

pub(super) mod show;

/// The nodes of a cluster.
pub(super) type Cluster = quorate_testing::Cluster<Roles<Quorum>>;
/// An event of the trace.
pub(super) type TraceEvent = quorate_testing::TraceEvent<Roles<Quorum>>;
/// The inputs and effects of an instance.
pub(super) type Recording = quorate_testing::Recording<Roles<Quorum>>;

/// The parameters of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    pub(super) seed: u64,
    pub(super) bugs: Bugs,
    /// Whether events inside a node arrive in any order, as the driving contract allows.
    pub(super) scrambled: bool,
}

impl Setup {
    /// A cluster of started nodes n1, n2, … that are connected to each other. Inputs and effects are recorded.
    pub(super) fn started(&self) -> Cluster {
        let nodes = (1..=self.nodes).map(NodeId);
        let placement = Placement::new(topology(nodes.clone(), 8, |_| 0));
        let scene = Quorum {
            placement: placement.expect("a ring of small numbers"),
            keyspaces: Vec::new(),
            requests: BTreeMap::new(),
            setup: self.clone(),
        };
        let mut cluster = Cluster::new(Roles(scene), nodes, Profile::MANUAL, self.seed, 0);
        cluster.record = true;
        if self.scrambled {
            cluster.scramble(self.seed);
        }
        cluster.start_all();
        cluster
    }
}

/// The roles of quorum keyspaces.
pub(super) struct Quorum {
    pub(super) placement: Placement,
    /// Every request so far, and its node.
    pub(super) requests: BTreeMap<u64, (NodeId, Request)>,
    /// The keyspaces, as the control plane would define them.
    keyspaces: Vec<Keyspace>,
    setup: Setup,
}

impl Quorum {
    fn surroundings(&self, node: NodeId) -> Surroundings {
        surroundings(node, self.placement.clone(), Timing::default(), self.setup.bugs)
    }

    /// Each instance has its own seed, as in every shell.
    fn hosted(
        &self,
        (node, boot): (NodeId, u64),
        number: u64,
        role: RoleId,
        instance: Instance<crate::Instance>,
    ) -> Hosted<Roles<Self>> {
        let seed = self.setup.seed ^ u64::from(node.0) << 48 ^ boot << 32 ^ number << 16;
        Hosted { role, seed, instance }
    }

    /// The message of a control role when the keyspaces have changed, and when its node starts.
    fn known(&self) -> Event {
        let header = Header {
            generation: 1,
            request: 0,
            deadline: Instant::NEVER,
            trace: None,
        };
        Event::Local {
            from: RoleId::Control,
            header,
            message: LocalMessage::Keyspaces(self.keyspaces.clone()),
        }
    }
}

impl Scene for Quorum {
    type Role = crate::Instance;

    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Roles<Self>>> {
        let instance = Instance::Node(NodeRole::new(&self.surroundings(node)));
        vec![self.hosted((node, boot), 1, RoleId::Node, instance)]
    }

    fn started(&mut self, _node: NodeId) -> Vec<(RoleId, Event)> {
        vec![(RoleId::Node, self.known())]
    }

    fn reconcile(
        &mut self,
        node: NodeId,
        specs: Vec<Spec>,
        process: &Process<Roles<Self>>,
    ) -> Vec<Hosted<Roles<Self>>> {
        let mut surroundings = self.surroundings(node);
        surroundings.alive = process.alive().clone();
        let created = specs
            .iter()
            .filter_map(|spec| match spec {
                Spec::Quorum(keyspace) => Some(crate::Instance::create(keyspace, &surroundings)),
                Spec::Control | Spec::Consensus(_) => None,
            })
            .flat_map(|created| created.expect("the keyspace fits the cluster"))
            .filter(|(role, _)| !process.has(*role));
        let first = process.roles().count() as u64 + 2;
        (first..)
            .zip(created)
            .map(|(number, (role, instance))| {
                self.hosted((node, process.boot()), number, role, Instance::Role(instance))
            })
            .collect()
    }

    fn hosts(role: RoleId) -> bool {
        role != RoleId::Control
    }
}

/// The operations of tests on quorum keyspaces.
pub(super) trait Keyspaces {
    /// Creates a keyspace with these settings on every node.
    fn create_keyspace(&mut self, settings: KeyspaceSettings);
    /// Sends a client's request to a coordinator. Returns the number of its response.
    fn submit(&mut self, node: NodeId, keyspace: KeyspaceId, request: Request, timeout: Duration) -> u64;
    /// Whether a node serves a keyspace.
    fn serves(&self, node: NodeId, keyspace: KeyspaceId) -> bool;
    /// The state of a key on a node's disk.
    fn durable(&self, node: NodeId, keyspace: KeyspaceId, key: &Key) -> Option<KeyState>;
}

impl Keyspaces for Cluster {
    fn create_keyspace(&mut self, settings: KeyspaceSettings) {
        let keyspaces = &mut self.protocol.0.keyspaces;
        keyspaces.push(Keyspace {
            id: KeyspaceId(keyspaces.len() as u32 + 1),
            settings,
            groups: Vec::new(),
        });
        for node in self.names() {
            let known = self.protocol.0.known();
            self.input(node, RoleId::Node, known);
        }
    }

    fn submit(&mut self, node: NodeId, keyspace: KeyspaceId, request: Request, timeout: Duration) -> u64 {
        let requests = &mut self.protocol.0.requests;
        requests.insert(self.operations + 1, (node, request.clone()));
        self.send_request(node, RoleId::Coordinator(keyspace), request, timeout)
    }

    fn serves(&self, node: NodeId, keyspace: KeyspaceId) -> bool {
        self.instance(node, RoleId::Coordinator(keyspace)).is_some()
    }

    fn durable(&self, node: NodeId, keyspace: KeyspaceId, key: &Key) -> Option<KeyState> {
        let contents = &self.nodes[&node].disk.store.contents;
        let row = contents.value(Table::Records, &record_key(keyspace, key))?;
        Some(KeyState::decode(row).expect("roles write states"))
    }
}

/// The rows of a persist.
pub(super) fn rows(ops: &[JournalOp]) -> impl Iterator<Item = &StateWrite> {
    ops.iter().flat_map(|op| match op {
        JournalOp::Write(rows) => rows,
        other => panic!("no role of the data plane persists {other:?}"),
    })
}
