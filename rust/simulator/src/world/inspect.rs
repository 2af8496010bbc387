//! Read access to the world, for tests, invariants and reports.

use bytes::Bytes;
use quorate_consensus::control::Control;
use quorate_consensus::shard::Shard;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{Group, Keyspace};
use quorate_protocol::role::RoleId;
use quorate_raft::types::{GroupId, HardState, LogIndex, Term};
use quorate_ring::HashKind;
use quorate_roles::Instance;
use quorate_versions::KeyState;

use super::{Changing, Creation, World};
use crate::control_log_model::ControlLogModel;
use crate::history::{History, Operation};
use crate::log_model::LogModels;
use crate::names::Names;
use crate::observation::Violation;
use crate::write_model::WriteModel;

impl World {
    /// The time, since the beginning of the run.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The hash over all events and effects so far, if enabled.
    pub fn hash(&self) -> Option<u64> {
        self.event_log.hash()
    }

    /// The number of events so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The last events as text.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.event_log.lines()
    }

    /// The violated invariant, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The history of the clients.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The model of all writes of quorum keyspaces.
    pub fn write_model(&self) -> &WriteModel {
        &self.write_model
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.config.nodes).map(NodeId)
    }

    /// Whether a node is running.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.machines[&node].process.is_some()
    }

    /// The control role of a node, if it is running.
    pub fn control(&self, node: NodeId) -> Option<&Control> {
        let process = self.machines[&node].process.as_ref()?;
        match process.roles.get(&RoleId::Control)?.hosted.role() {
            Instance::Consensus(quorate_consensus::Instance::Control(control)) => Some(control),
            _ => None,
        }
    }

    /// A node's server of a group of a consensus keyspace, if it is running.
    pub fn shard(&self, node: NodeId, group: GroupId) -> Option<&Shard> {
        let process = self.machines[&node].process.as_ref()?;
        match process.roles.get(&RoleId::Shard(group))?.hosted.role() {
            Instance::Consensus(quorate_consensus::Instance::Shard(shard)) => Some(shard),
            _ => None,
        }
    }

    /// All rows of a group on a node.
    pub fn group_rows(&self, node: NodeId, group: GroupId) -> Vec<(Bytes, Bytes)> {
        self.machines[&node].disk.group_rows(group)
    }

    /// The durable term and vote of a node's server of a group.
    pub fn durable_hard_state(&self, node: NodeId, group: GroupId) -> HardState {
        self.machines[&node].disk.hard_state(group)
    }

    /// Whether an entry of this term is durable on a node at this index of a group's log, or covered by a snapshot.
    pub fn has_durably(&self, node: NodeId, group: GroupId, index: LogIndex, term: Option<Term>) -> bool {
        let disk = &self.machines[&node].disk;
        let found = disk.term_of_entry(group, index);
        found.is_some() && (term.is_none() || found == term) || index <= disk.begins_behind(group)
    }

    /// The models of the committed logs of consensus keyspaces.
    pub fn log_models(&self) -> &LogModels {
        &self.log_models
    }

    /// The model of the committed log of the control plane.
    pub fn control_log_model(&self) -> &ControlLogModel {
        &self.control_log_model
    }

    /// The operations of clients by the ids of their requests.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The groups of consensus keyspaces, with their keyspace and shard.
    pub fn groups(&self) -> impl Iterator<Item = (&Keyspace, &Group)> {
        self.keyspaces()
            .flat_map(|keyspace| keyspace.groups.iter().map(move |group| (keyspace, group)))
    }

    /// How keys become tokens.
    pub fn hash_kind(&self) -> HashKind {
        self.placement.topology().ring.hash
    }

    /// The creations of keyspaces by clients, in order.
    pub fn creations(&self) -> &[Creation] {
        &self.creations
    }

    /// The durable state of a key on a node.
    pub fn durable(&self, node: NodeId, keyspace: KeyspaceId, key: &Key) -> KeyState {
        self.machines[&node].disk.state(keyspace, key)
    }

    /// Whether a key's record on a node is corrupt.
    pub fn is_corrupt(&self, node: NodeId, keyspace: KeyspaceId, key: &Key) -> bool {
        self.machines[&node].disk.is_corrupt(keyspace, key)
    }

    /// Whether any record has been corrupted.
    pub fn has_corrupt_record(&self) -> bool {
        self.corrupted
    }

    /// Whether a creation, by its number, had several attempts: each may have created the keyspace.
    pub fn was_retried(&self, creation: usize) -> bool {
        self.retried.contains(&creation)
    }

    /// The other changes of keyspaces by clients, in order.
    pub fn changes(&self) -> &[Changing] {
        &self.changes
    }

    /// The drops of keyspaces by clients, and their results.
    pub fn drops(&self) -> impl Iterator<Item = (&str, Option<&Result<Response, Error>>)> {
        self.changes.iter().filter_map(|(request, answer)| match request {
            Request::DropKeyspace { name, .. } => Some((name.as_str(), answer.as_ref())),
            _ => None,
        })
    }

    /// Whether any client altered this keyspace.
    pub fn is_altered(&self, keyspace: &str) -> bool {
        self.changes
            .iter()
            .any(|(request, _)| matches!(request, Request::AlterKeyspace { name, .. } if name == keyspace))
    }

    /// The keyspaces served by any node.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        let keyspaces = self.ever_served();
        keyspaces.filter(|keyspace| !self.gone.contains(&keyspace.id))
    }

    /// The keyspaces ever served by any node, including dropped ones.
    pub fn ever_served(&self) -> impl Iterator<Item = &Keyspace> {
        self.served.values().map(|served| &served.keyspace)
    }

    /// The data of a keyspace on a node's disk.
    pub fn leftovers(&self, node: NodeId, keyspace: &Keyspace) -> Vec<String> {
        self.machines[&node].disk.leftovers(keyspace)
    }

    /// The replicas of a key, most preferred first.
    pub fn owners(&self, keyspace: KeyspaceId, key: &Key) -> &[NodeId] {
        self.served[&keyspace].preference.of(key)
    }

    /// N of a keyspace.
    pub fn replicas(&self, keyspace: KeyspaceId) -> u8 {
        self.served[&keyspace].keyspace.settings.replicas
    }

    /// The number of replicas that a level requires.
    pub fn required(&self, keyspace: KeyspaceId, level: Level) -> u8 {
        level
            .required(self.replicas(keyspace))
            .expect("clients use valid levels")
    }

    /// The operations of the closing phase, which must succeed.
    pub fn closing_operations(&self) -> &[Operation] {
        self.closing
            .map_or(&[], |first| &self.history.operations()[first..])
    }

    /// Whether an operation, by its number, belongs to the probing of shards.
    pub fn is_probe(&self, number: usize) -> bool {
        self.probing.is_some_and(|first| first <= number)
    }

    /// Bytes queued on a node: for its disk, and for its peers.
    pub fn queued_bytes(&self, node: NodeId) -> (usize, u64) {
        let machine = &self.machines[&node];
        let links = machine
            .process
            .as_ref()
            .map_or(0, |process| process.queued_bytes());
        (machine.disk.queued_bytes(), links)
    }

    /// Pending requests of clients on a node.
    pub fn requests_in_flight(&self, node: NodeId) -> usize {
        self.machines[&node]
            .process
            .as_ref()
            .map_or(0, |process| process.totals.requests)
    }
}
