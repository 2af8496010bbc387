//! The workload on consensus keyspaces: writes with and without conditions, batches, appended entries, and reads of all
//! kinds, each on one shard.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_protocol::api::{ReadLevel, Request, Response};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;

use crate::rng::SimRng;

/// The maximum number of keys of one batch or read.
const MOST_KEYS: usize = 3;

/// The workload of a client on consensus keyspaces, and its knowledge of them.
#[derive(Clone, Debug)]
pub(super) struct Shards {
    keyspaces: Vec<Keyspace>,
    hash: HashKind,
    /// The versions of keys last seen, possibly outdated; `None` for absent ones.
    versions: BTreeMap<(GroupId, Key), Option<u64>>,
    /// The last seen entry of each shard's log of entries.
    cursors: BTreeMap<GroupId, u64>,
}

impl Shards {
    pub(super) fn new(keyspaces: Vec<Keyspace>, hash: HashKind) -> Self {
        Shards {
            keyspaces,
            hash,
            versions: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// A random keyspace, if any.
    pub(super) fn any(&self, rng: &mut SimRng) -> Option<KeyspaceId> {
        let count = self.keyspaces.len() as u64;
        (count > 0).then(|| self.keyspaces[rng.below(count) as usize].id)
    }

    /// Whether there are no keyspaces.
    pub(super) fn is_empty(&self) -> bool {
        self.keyspaces.is_empty()
    }

    /// The next request; `value` creates a unique value. Sometimes it uses the keyspace `of_other_mode` by mistake.
    pub(super) fn next_operation(
        &mut self,
        keys: &[Key],
        of_other_mode: KeyspaceId,
        rng: &mut SimRng,
        mut value: impl FnMut(&mut SimRng) -> Bytes,
    ) -> Request {
        let place = rng.below(self.keyspaces.len() as u64) as usize;
        let keyspace = &self.keyspaces[place];
        let id = match rng.chance(0.01) {
            true => of_other_mode,
            false => keyspace.id,
        };
        let shard_of = |bytes: &[u8]| keyspace.shard_of(self.hash.token_of(bytes));
        let key = rng.pick(keys).clone();
        let shard = shard_of(key.partition());
        let group = keyspace.groups[shard].id;
        let propose = |group, command| Request::Propose {
            keyspace: id,
            group,
            command,
            session: None,
        };
        let level = match rng.chance(0.25) {
            true => ReadLevel::Stale,
            false => ReadLevel::Linearizable,
        };
        let neighbours = || {
            keys.iter()
                .filter(|key| shard_of(key.partition()) == shard)
                .cloned()
        };
        match rng.below(100) {
            0..30 => {
                let write = self.write(group, key, rng, &mut value);
                propose(group, Command::Write(vec![write]))
            }
            30..38 => {
                let keys = some_of(neighbours().collect(), rng);
                let writes = keys
                    .into_iter()
                    .map(|key| self.write(group, key, rng, &mut value));
                propose(group, Command::Write(writes.collect()))
            }
            38..50 => {
                let source = format!("source-{}", rng.below(4));
                let group = keyspace.groups[shard_of(source.as_bytes())].id;
                let data = value(rng);
                propose(group, Command::Append { source, data })
            }
            50..85 => Request::Read {
                keyspace: id,
                group,
                keys: match rng.chance(0.3) {
                    true => some_of(neighbours().collect(), rng),
                    false => vec![key],
                },
                level,
            },
            85..93 => Request::ReadRange {
                keyspace: id,
                group,
                end: rng.chance(0.5).then(|| rng.pick(keys).clone()),
                start: rng.chance(0.5).then_some(key),
                after_start: rng.chance(0.3),
                limit: 1 + rng.below(8) as u32,
                level,
            },
            _ => Request::ReadLog {
                keyspace: id,
                group,
                after: match rng.chance(0.7) {
                    true => self.cursors.get(&group).copied().unwrap_or(0),
                    false => 0,
                },
                limit: 1 + rng.below(8) as u32,
                level,
            },
        }
    }

    fn write(
        &self,
        group: GroupId,
        key: Key,
        rng: &mut SimRng,
        value: &mut impl FnMut(&mut SimRng) -> Bytes,
    ) -> Write {
        let condition = match (rng.below(10), self.versions.get(&(group, key.clone()))) {
            (0..4, Some(Some(version))) => Condition::Version(*version),
            (0..4, Some(None)) | (4, _) => Condition::Absent,
            _ => Condition::Any,
        };
        Write {
            value: (!rng.chance(0.15)).then(|| value(rng)),
            key,
            condition,
        }
    }

    /// Records a response.
    pub(super) fn learn(&mut self, request: &Request, answer: &Response) {
        match (request, answer) {
            (
                Request::Propose {
                    group,
                    command: Command::Write(writes),
                    ..
                },
                Response::Committed(committed),
            ) => {
                for write in writes {
                    let version = write.value.as_ref().map(|_| committed.index);
                    self.versions.insert((*group, write.key.clone()), version);
                }
            }
            (Request::Read { group, keys, .. }, Response::Records { records, .. }) => {
                for (key, record) in keys.iter().zip(records) {
                    let version = record.as_ref().map(|record| record.version);
                    self.versions.insert((*group, key.clone()), version);
                }
            }
            (Request::ReadRange { group, .. }, Response::RecordPage { entries, .. }) => {
                for (key, record) in entries {
                    self.versions.insert((*group, key.clone()), Some(record.version));
                }
            }
            (Request::ReadLog { group, .. }, Response::LogPage { next, .. }) => {
                self.cursors.insert(*group, next.unwrap_or(0));
            }
            _ => {}
        }
    }
}

/// A random selection of these, in random order.
fn some_of(mut keys: Vec<Key>, rng: &mut SimRng) -> Vec<Key> {
    rng.shuffle(&mut keys);
    keys.truncate(1 + rng.below(MOST_KEYS as u64) as usize);
    keys
}
