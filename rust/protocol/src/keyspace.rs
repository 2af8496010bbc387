//! Keyspaces: named collections, each with replication settings of its own.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::KeyspaceId;
use crate::level::Level;

/// The longest name of a keyspace, in bytes.
pub const MAX_KEYSPACE_NAME: usize = 64;

/// How a keyspace replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Leaderless, with a consistency level per operation (Dynamo, Cassandra, Riak).
    Quorum,
}

/// What a coordinator does when the replicas it read disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadRepair {
    /// Nothing.
    Off,
    /// Answers first, then sends the merged state to those that lack it.
    Async,
}

/// The settings that a user gives; what is stored is a [`Keyspace`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyspaceSettings {
    /// 1 to 64 bytes of letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// How it replicates.
    pub mode: Mode,
    /// N: how many nodes store each key.
    pub replicas: u8,
    /// The level of reads that name none.
    pub read_level: Level,
    /// The level of writes that name none.
    pub write_level: Level,
    /// What a read does about stale replicas.
    pub read_repair: ReadRepair,
}

/// A keyspace as it is stored on every node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keyspace {
    /// Never reused.
    pub id: KeyspaceId,
    /// As its creator gave them.
    pub settings: KeyspaceSettings,
}

/// What is to change about a keyspace; `None` stays as it is. How many replicas it has cannot be changed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyspaceChange {
    /// The level of reads that name none.
    pub read_level: Option<Level>,
    /// The level of writes that name none.
    pub write_level: Option<Level>,
    /// What a read does about stale replicas.
    pub read_repair: Option<ReadRepair>,
}

impl KeyspaceChange {
    /// Changes the settings, or leaves them as they are.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a level that the keyspace does not have.
    pub fn apply(&self, settings: &mut KeyspaceSettings) -> Result<(), Error> {
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
        self.read_level.required(self.replicas)?;
        self.write_level.required(self.replicas)?;
        Ok(())
    }
}
