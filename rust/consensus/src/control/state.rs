//! The replicated state of the control plane.
//!
//! Everything is validated when a command is *applied*: its proposer saw an earlier state. A command carries
//! its proposer's id for it, and the answers to the latest commands are part of the state, so that a command
//! that is in the log twice is executed once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::time::WallTime;
use quorate_protocol::control_command::{Change, Command, Outcome};
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceChange, KeyspaceSettings, Mode};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::format::{self, FormatError};
use quorate_raft::types::{GroupId, LogIndex, LogPosition};
use quorate_versions::WriteId;
use serde::{Deserialize, Serialize};

use crate::host::Machine;
use crate::rows;

/// The control plane's own group. All other groups have greater numbers.
pub const CONTROL_GROUP: GroupId = GroupId(1);

/// The latest version of the log commands that this program knows.
pub const CLUSTER_VERSION: u16 = 1;

/// The number of answers stored for retried commands. A command is only retried while a client waits for it.
const RECENT: usize = 1024;

/// A dropped keyspace or group, whose data may remain on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum DroppedId {
    Group(GroupId),
    Keyspace(KeyspaceId),
}

/// The state of the control plane.
///
/// # Invariants
/// * No two keyspaces share an id or a name; no id is ever reused, nor a group's.
/// * `generation` rises by one with each change, and only then; before the bootstrap it is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ControlPlane {
    /// Members and ring; `None` before the bootstrap.
    topology: Option<Topology>,
    generation: u64,
    /// The version of commands in use: all members know it.
    version: u16,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    last_keyspace: KeyspaceId,
    last_group: GroupId,
    /// The entry that last changed each member.
    touched: BTreeMap<NodeId, LogIndex>,
    recent: VecDeque<(WriteId, Outcome)>,
}

impl Default for ControlPlane {
    fn default() -> Self {
        ControlPlane {
            topology: None,
            generation: 0,
            version: 0,
            keyspaces: BTreeMap::new(),
            last_keyspace: KeyspaceId(0),
            last_group: CONTROL_GROUP,
            touched: BTreeMap::new(),
            recent: VecDeque::new(),
        }
    }
}

impl ControlPlane {
    /// Rises with each change; 0 before the bootstrap.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The version of log commands in use; 0 before the bootstrap.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The members and the ring, in the current generation; `None` before the bootstrap.
    pub fn topology(&self) -> Option<Topology> {
        let topology = self.topology.clone()?;
        Some(Topology {
            generation: self.generation,
            ..topology
        })
    }

    /// A registered member.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.topology.as_ref()?.member(node)
    }

    /// The entry that last changed this member; `None` for an unknown node.
    pub fn touched(&self, node: NodeId) -> Option<LogIndex> {
        self.touched.get(&node).copied()
    }

    /// All keyspaces, by id.
    pub fn keyspaces(&self) -> &BTreeMap<KeyspaceId, Keyspace> {
        &self.keyspaces
    }

    /// Ids that were assigned and are no longer in use.
    pub(super) fn dropped_ids(&self) -> impl Iterator<Item = DroppedId> + '_ {
        let groups = self.keyspaces.values().flat_map(|keyspace| &keyspace.groups);
        let live: BTreeSet<GroupId> = groups.map(|group| group.id).collect();
        let groups = (CONTROL_GROUP.0 + 1..=self.last_group.0).map(GroupId);
        let groups = groups.filter(move |id| !live.contains(id)).map(DroppedId::Group);
        let keyspaces = (1..=self.last_keyspace.0).map(KeyspaceId);
        let keyspaces = keyspaces.filter(|id| !self.keyspaces.contains_key(id));
        groups.chain(keyspaces.map(DroppedId::Keyspace))
    }

    fn named(&self, name: &str) -> Option<&Keyspace> {
        self.keyspaces
            .values()
            .find(|keyspace| keyspace.settings.name == name)
    }

    fn existing(&self, name: &str) -> Result<&Keyspace, Error> {
        self.named(name).ok_or_else(|| {
            Error::NotFound(format!(
                "keyspace {name:?} does not exist: create it, or list the keyspaces to see their names"
            ))
        })
    }

    // ---- commands ----

    fn execute(&mut self, index: LogIndex, command: Command) -> Outcome {
        let done = match command {
            Command::Bootstrap(topology) => {
                self.bootstrap(index, topology);
                Ok(Outcome::Done)
            }
            Command::Register(member) => self.register(index, member),
            Command::CreateKeyspace(settings) => self.create(settings),
            Command::AlterKeyspace { name, change } => self.alter(&name, change),
            Command::DropKeyspace { name } => self.drop_keyspace(&name),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    /// The first bootstrap counts.
    fn bootstrap(&mut self, index: LogIndex, topology: Topology) {
        if self.topology.is_none() {
            self.generation = topology.generation.max(1);
            self.version = CLUSTER_VERSION;
            self.touched = topology.ids().map(|node| (node, index)).collect();
            self.topology = Some(topology);
        }
    }

    /// Updates a member's addresses. Its position in the ring does not change.
    fn register(&mut self, index: LogIndex, member: Member) -> Result<Outcome, Error> {
        let members = self
            .topology
            .iter_mut()
            .flat_map(|topology| &mut topology.members);
        let known = members.into_iter().find(|known| known.id == member.id);
        let Some(known) = known else {
            return Err(Error::NotFound(format!(
                "{} is not a member of this cluster: add it first",
                member.id
            )));
        };
        if known.has_addresses_of(&member) {
            return Ok(Outcome::Done);
        }
        known.peer_address = member.peer_address;
        known.client_address = member.client_address;
        known.http_address = member.http_address;
        self.touched.insert(member.id, index);
        self.generation += 1;
        Ok(Outcome::Done)
    }

    fn create(&mut self, settings: KeyspaceSettings) -> Result<Outcome, Error> {
        let members = self
            .topology
            .as_ref()
            .map_or(0, |topology| topology.members.len());
        settings.validate(members)?;
        if let Some(existing) = self.named(&settings.name) {
            if existing.settings != settings {
                return Err(exists(existing));
            }
            return Ok(Outcome::Keyspace {
                keyspace: existing.clone(),
                created: false,
            });
        }
        let groups = match settings.mode {
            Mode::Quorum => Vec::new(),
            Mode::Consensus => self.place(&settings)?,
        };
        self.last_keyspace.0 += 1;
        self.last_group.0 += groups.len() as u32;
        let keyspace = Keyspace {
            id: self.last_keyspace,
            settings,
            groups,
        };
        self.keyspaces.insert(keyspace.id, keyspace.clone());
        self.generation += 1;
        Ok(Outcome::Keyspace {
            keyspace,
            created: true,
        })
    }

    /// The groups of a new consensus keyspace: each is placed by the ring at the start of its arc.
    fn place(&self, settings: &KeyspaceSettings) -> Result<Vec<Group>, Error> {
        let topology = self.topology.as_ref();
        let topology = topology.ok_or_else(|| Error::invalid("the cluster has no members yet: retry"))?;
        let ring = topology.build_ring()?;
        let group = |shard: u16| {
            let token = Keyspace::first_token(shard, settings.shards);
            let members = ring.preference_list(token, settings.replicas);
            Ok(Group {
                id: GroupId(self.last_group.0 + 1 + u32::from(shard)),
                members: members.map_err(|error| Error::invalid(error.to_string()))?,
            })
        };
        (0..settings.shards).map(group).collect()
    }

    fn alter(&mut self, name: &str, change: KeyspaceChange) -> Result<Outcome, Error> {
        let mut keyspace = self.existing(name)?.clone();
        let before = keyspace.settings.clone();
        change.apply(&mut keyspace.settings)?;
        if keyspace.settings != before {
            self.keyspaces.insert(keyspace.id, keyspace.clone());
            self.generation += 1;
        }
        Ok(Outcome::Keyspace {
            keyspace,
            created: false,
        })
    }

    fn drop_keyspace(&mut self, name: &str) -> Result<Outcome, Error> {
        let keyspace = self.existing(name)?.clone();
        self.keyspaces.remove(&keyspace.id);
        self.generation += 1;
        Ok(Outcome::Keyspace {
            keyspace,
            created: false,
        })
    }
}

impl ControlPlane {
    /// Executes a change once; a retry gets the first outcome.
    pub fn apply(&mut self, position: LogPosition, change: Change) -> Outcome {
        let Change { id, command } = change;
        let known = self.recent.iter().find(|(recent, _)| *recent == id);
        if let Some((_, outcome)) = known {
            return outcome.clone();
        }
        let outcome = self.execute(position.index, command);
        self.recent.push_back((id, outcome.clone()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        outcome
    }

    /// Encodes the state.
    pub fn save(&self) -> Bytes {
        format::encode(self)
    }

    /// Decodes a saved state.
    ///
    /// # Errors
    /// [`FormatError`] if `bytes` are not a state.
    pub fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        format::decode("control plane", bytes)
    }
}

/// The state in its host: in memory, and in one row of its group, which is written after each batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replicated {
    pub(super) plane: ControlPlane,
    /// Whether the row is outdated.
    changed: bool,
}

impl Machine for Replicated {
    type Command = Change;
    type Outcome = Outcome;
    const IN_MEMORY: bool = true;

    fn resume(_group: GroupId, row: Option<&Bytes>) -> Result<Self, String> {
        let plane = row.map(ControlPlane::load).transpose();
        Ok(Replicated {
            plane: plane.map_err(|error| error.to_string())?.unwrap_or_default(),
            changed: false,
        })
    }

    fn execute(&mut self, position: LogPosition, _time: WallTime, change: Change) -> Outcome {
        self.changed = true;
        self.plane.apply(position, change)
    }

    fn take(&mut self) -> BTreeMap<Bytes, Option<Bytes>> {
        let row = std::mem::take(&mut self.changed)
            .then(|| (rows::machine_key(CONTROL_GROUP), Some(self.plane.save())));
        row.into_iter().collect()
    }
}

/// Lists the settings as a caller writes them, so that they can be copied.
fn exists(keyspace: &Keyspace) -> Error {
    let settings = &keyspace.settings;
    let (name, replicas) = (&settings.name, settings.replicas);
    let others = match settings.mode {
        Mode::Quorum => format!(
            "mode=quorum replicas={replicas} read={} write={} read_repair={}",
            settings.read_level,
            settings.write_level,
            format!("{:?}", settings.read_repair).to_lowercase()
        ),
        Mode::Consensus => format!(
            "mode=consensus replicas={replicas} shards={} snapshot_every={}",
            settings.shards, settings.snapshot_every
        ),
    };
    Error::KeyspaceExists(format!(
        "keyspace {name:?} exists with other settings ({others}): use these, or choose another name"
    ))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
