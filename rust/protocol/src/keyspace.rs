//! Keyspaces: named collections, each with its own replication settings.

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_raft::types::GroupId;
use quorate_ring::{HashKind, Token};
use serde::{Deserialize, Serialize};

/// The maximum length of a keyspace's name, in bytes.
pub const MAX_KEYSPACE_NAME: usize = 64;

/// How a keyspace replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Leaderless, with a consistency level per operation (Dynamo, Cassandra, Riak).
    Quorum,
    /// Raft groups: linearizable (etcd, TiKV).
    Consensus,
}

/// The action of a coordinator when the replicas of a read differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadRepair {
    /// None.
    Off,
    /// Respond, then send the merged state to stale replicas.
    Async,
}

/// The maximum number of Raft groups of a keyspace.
pub const MAX_SHARDS: u16 = 256;

/// The default of [`KeyspaceSettings::snapshot_every`].
pub const SNAPSHOT_EVERY: u32 = 10_000;

/// The settings of a keyspace, as given by its creator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyspaceSettings {
    /// 1 to 64 bytes of letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// How it replicates.
    pub mode: Mode,
    /// N: the number of nodes that store each key.
    pub replicas: u8,
    /// The default level of reads.
    pub read_level: Level,
    /// The default level of writes.
    pub write_level: Level,
    /// Whether reads repair stale replicas.
    pub read_repair: ReadRepair,
    /// In consensus mode: the number of Raft groups that share the keys, 1 to 256. Otherwise 1.
    pub shards: u16,
    /// In consensus mode: a group's log is compacted when this many entries have been applied since the last compaction.
    pub snapshot_every: u32,
}

/// One Raft group of a consensus keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// Never reused.
    pub id: GroupId,
    /// Its initial members, as placed by the ring.
    pub members: Vec<NodeId>,
}

/// A keyspace as it is stored on every node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keyspace {
    /// Never reused.
    pub id: KeyspaceId,
    /// Its settings.
    pub settings: KeyspaceSettings,
    /// In consensus mode: its groups, by shard. Otherwise empty.
    pub groups: Vec<Group>,
}

impl Keyspace {
    /// About its size in memory besides the struct, in bytes; no less than on the wire.
    pub fn size(&self) -> usize {
        let members: usize = self.groups.iter().map(|group| group.members.len()).sum();
        self.settings.name.len() + size_of_val(&self.groups[..]) + members * 2 * size_of::<NodeId>()
    }

    /// The reason why operations pending on it fail when it is dropped.
    pub fn dropped_reason(&self) -> String {
        format!("keyspace {:?} was dropped", self.settings.name)
    }

    /// The error of a request that was not executed because this keyspace was dropped.
    pub fn dropped_error(&self) -> Error {
        Error::NotFound(format!("{}: nothing was executed", self.dropped_reason()))
    }

    /// The shard of a key with this token: the ring, cut into as many equal arcs as there are groups.
    pub fn shard_of(&self, token: Token) -> usize {
        ((u128::from(token.0) * self.groups.len() as u128) >> 64) as usize
    }

    /// The shard of a key: a function of its partition key alone, so that a partition stays together.
    pub fn shard_of_key(&self, hash: HashKind, key: &Key) -> usize {
        self.shard_of(hash.token_of(key.partition()))
    }

    /// The shard to which entries with this source are appended.
    pub fn shard_of_source(&self, hash: HashKind, source: &str) -> usize {
        self.shard_of(hash.token_of(source.as_bytes()))
    }

    /// The token at which a shard's arc begins.
    pub fn first_token(shard: u16, shards: u16) -> Token {
        Token(((u128::from(shard) << 64).div_ceil(u128::from(shards))) as u64)
    }

    /// The shard that is this group.
    pub fn group(&self, id: GroupId) -> Option<(u16, &Group)> {
        (0..).zip(&self.groups).find(|(_, group)| group.id == id)
    }
}

/// A change of a keyspace's settings; `None` leaves a setting unchanged. The number of replicas cannot be changed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyspaceChange {
    /// The default level of reads.
    pub read_level: Option<Level>,
    /// The default level of writes.
    pub write_level: Option<Level>,
    /// Whether reads repair stale replicas.
    pub read_repair: Option<ReadRepair>,
}

impl KeyspaceChange {
    /// Applies the change to the settings, or fails without changing them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a level that the keyspace does not have, and in consensus mode for any change.
    pub fn apply(&self, settings: &mut KeyspaceSettings) -> Result<(), Error> {
        if settings.mode == Mode::Consensus {
            return Err(Error::invalid(format!(
                "keyspace {:?} has mode=\"consensus\", which has neither levels nor read repair: its settings cannot be \
                 altered",
                settings.name
            )));
        }
        let read_level = self.read_level.unwrap_or(settings.read_level);
        let write_level = self.write_level.unwrap_or(settings.write_level);
        read_level.required(settings.replicas)?;
        write_level.required(settings.replicas)?;
        settings.read_level = read_level;
        settings.write_level = write_level;
        settings.read_repair = self.read_repair.unwrap_or(settings.read_repair);
        Ok(())
    }
}

impl KeyspaceSettings {
    /// A quorum-mode keyspace with the defaults: QUORUM reads and writes, asynchronous read repair.
    pub fn quorum(name: &str, replicas: u8) -> Self {
        KeyspaceSettings {
            name: name.to_owned(),
            mode: Mode::Quorum,
            replicas,
            read_level: Level::Quorum,
            write_level: Level::Quorum,
            read_repair: ReadRepair::Async,
            shards: 1,
            snapshot_every: SNAPSHOT_EVERY,
        }
    }

    /// A consensus-mode keyspace of one group.
    pub fn consensus(name: &str, replicas: u8) -> Self {
        KeyspaceSettings {
            mode: Mode::Consensus,
            ..KeyspaceSettings::quorum(name, replicas)
        }
    }

    /// Checks the settings against a cluster of `nodes` nodes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming the setting and the remedy.
    pub fn validate(&self, nodes: usize) -> Result<(), Error> {
        let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.name.is_empty() || self.name.len() > MAX_KEYSPACE_NAME || !self.name.chars().all(well_formed)
        {
            return Err(Error::invalid(format!(
                "keyspace name {:?}: use 1 to {MAX_KEYSPACE_NAME} letters, digits, '_', '-' or '.'",
                self.name
            )));
        }
        if self.replicas == 0 {
            return Err(Error::invalid(format!(
                "keyspace {:?}: replicas must be at least 1",
                self.name
            )));
        }
        if usize::from(self.replicas) > nodes {
            return Err(Error::invalid(format!(
                "keyspace {:?}: replicas={} but the cluster has {nodes} node(s): lower replicas or start more nodes",
                self.name, self.replicas
            )));
        }
        let most = if self.mode == Mode::Consensus {
            MAX_SHARDS
        } else {
            1
        };
        if self.shards == 0 || self.shards > most {
            return Err(Error::invalid(format!(
                "keyspace {:?}: shards={} but {} keyspace has 1 to {most}: choose a number in that range",
                self.name,
                self.shards,
                if self.mode == Mode::Consensus {
                    "a consensus"
                } else {
                    "a quorum"
                },
            )));
        }
        if self.snapshot_every == 0 {
            return Err(Error::invalid(format!(
                "keyspace {:?}: snapshot_every must be at least 1 entry",
                self.name
            )));
        }
        self.read_level.required(self.replicas)?;
        self.write_level.required(self.replicas)?;
        Ok(())
    }
}
