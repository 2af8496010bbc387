//! What a simulated client wants: operations on a few keys, at mixed levels, some of them in answer to what it read.

mod shards;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::core::CallOptions;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::Response;
use quorate_protocol::keyspace::{Keyspace, Mode};
use quorate_ring::HashKind;
use quorate_versions::{Context, VersionVector};

use crate::chance::Chance;
use crate::history::{Action, Operation};
use shards::Shards;

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In which keyspace.
    pub keyspace: KeyspaceId,
    /// What.
    pub action: Action,
    /// What is asked for in the same request: as many puts beside a put, or gets beside a get.
    pub more: Vec<Action>,
    /// At which level.
    pub level: Level,
    /// Timeout and routing.
    pub options: CallOptions,
}

/// The habits of one client.
#[derive(Clone, Debug)]
pub struct Workload {
    client: u32,
    chance: Chance,
    /// Those in quorum mode, each with its number of replicas.
    keyspaces: Vec<(KeyspaceId, u8)>,
    shards: Shards,
    nodes: Vec<NodeId>,
    keys: Vec<Key>,
    /// What it last saw of each key: read-modify-writes carry it, even when it is stale by now.
    contexts: BTreeMap<(KeyspaceId, Key), Context>,
    values: u64,
    /// The node that it asks for everything that concerns shards, if it has chosen one for good.
    home: Option<NodeId>,
    /// The longest pause between two operations.
    pause: Duration,
}

impl Workload {
    /// A client that works on `keys` of these keyspaces, which are on a ring with this hash.
    ///
    /// # Panics
    /// If there is no keyspace in quorum mode or no key.
    pub fn new(
        seed: u64,
        client: u32,
        (keyspaces, hash): (Vec<Keyspace>, HashKind),
        nodes: Vec<NodeId>,
        keys: Vec<Key>,
    ) -> Self {
        let (quorum, consensus): (Vec<Keyspace>, Vec<Keyspace>) = keyspaces
            .into_iter()
            .partition(|keyspace| keyspace.settings.mode == Mode::Quorum);
        let keyspaces: Vec<(KeyspaceId, u8)> = quorum
            .iter()
            .map(|keyspace| (keyspace.id, keyspace.settings.replicas))
            .collect();
        assert!(
            !keyspaces.is_empty() && !keys.is_empty(),
            "a workload needs something to work on"
        );
        let mut chance = Chance::named(seed, &format!("client {client}"));
        let pause = *chance.pick(&[
            Duration::from_millis(2),
            Duration::from_millis(20),
            Duration::from_millis(100),
        ]);
        // Whoever stays with a follower comes to another leader when that does, others when the old one sends them away.
        let home = chance.happens(0.3).then(|| *chance.pick(&nodes));
        Workload {
            client,
            chance,
            keyspaces,
            shards: Shards::new(consensus, hash),
            nodes,
            keys,
            contexts: BTreeMap::new(),
            values: 0,
            home,
            pause,
        }
    }

    /// What it does next.
    pub fn think(&mut self) -> Step {
        match !self.shards.is_empty() && self.chance.happens(0.5) {
            true => self.think_of_shards(),
            false => self.think_of_quorums(),
        }
    }

    fn think_of_shards(&mut self) -> Step {
        let (client, values) = (self.client, &mut self.values);
        let value = |chance: &mut Chance| value(client, values, chance);
        let (of_other_mode, _) = *self.chance.pick(&self.keyspaces);
        let request = self
            .shards
            .think(&self.keys, of_other_mode, &mut self.chance, value);
        let keyspace = request.keyspace().expect("shards are asked for data");
        let timeout = *self.chance.pick(&[200, 1_000, 2_000]);
        let options = self.options(timeout, 0.1);
        Step {
            keyspace,
            action: Action::Shard(request),
            more: Vec::new(),
            level: Level::Quorum,
            options: self.home.map_or(options, |home| options.on(home)),
        }
    }

    /// The timeout, and now and then a node that is to be asked.
    fn options(&mut self, timeout_ms: u64, pinned: f64) -> CallOptions {
        let options = CallOptions::timeout(Duration::from_millis(timeout_ms));
        match self.chance.happens(pinned) {
            true => options.on(*self.chance.pick(&self.nodes)),
            false => options,
        }
    }

    fn think_of_quorums(&mut self) -> Step {
        let (keyspace, replicas) = *self.chance.pick(&self.keyspaces);
        let key = self.chance.pick(&self.keys).clone();
        let action = match self.chance.below(100) {
            0..55 => self.put(keyspace, key),
            55..95 => Action::Get { key },
            _ => self.scan(key),
        };
        let more = self.more(keyspace, &action);
        let level = self.level(replicas);
        let timeout = *self.chance.pick(&[50, 500, 500, 2_000]);
        let options = self.options(timeout, 0.2);
        // Now and then it takes a keyspace of the other mode for this one.
        let mistaken = self
            .chance
            .happens(0.01)
            .then(|| self.shards.any(&mut self.chance))
            .flatten();
        Step {
            keyspace: mistaken.unwrap_or(keyspace),
            action,
            more,
            level,
            options,
        }
    }

    /// Takes note of an answer and says how long it rests.
    pub fn completed(&mut self, operation: &Operation) -> Duration {
        let Operation {
            keyspace,
            action,
            completed,
            ..
        } = operation;
        if let Some((_, Ok(response))) = completed {
            match (action, response) {
                (Action::Get { key }, Response::Entry(entry)) => {
                    self.contexts
                        .insert((*keyspace, key.clone()), entry.context.clone());
                }
                (Action::Put { key, .. }, Response::Written(written)) if self.chance.happens(0.5) => {
                    self.contexts
                        .insert((*keyspace, key.clone()), written.context.clone());
                }
                (Action::Scan { .. }, Response::Page(page)) => {
                    for (key, entry) in &page.entries {
                        self.contexts
                            .insert((*keyspace, key.clone()), entry.context.clone());
                    }
                }
                (Action::Shard(request), response) => self.shards.learn(request, response),
                _ => {}
            }
        }
        self.chance.between(Duration::ZERO, self.pause)
    }

    fn value(&mut self) -> Bytes {
        value(self.client, &mut self.values, &mut self.chance)
    }

    /// A put without a context, with one, or a delete.
    fn put(&mut self, keyspace: KeyspaceId, key: Key) -> Action {
        match self.chance.below(55) {
            0..30 => Action::Put {
                value: Some(self.value()),
                context: None,
                key,
            },
            30..50 => {
                let context = self
                    .contexts
                    .get(&(keyspace, key.clone()))
                    .cloned()
                    .unwrap_or_else(|| Context::new(keyspace, &key, VersionVector::new()));
                Action::Put {
                    value: Some(self.value()),
                    context: Some(context),
                    key,
                }
            }
            _ => Action::Put {
                value: None,
                context: self.contexts.get(&(keyspace, key.clone())).cloned(),
                key,
            },
        }
    }

    /// Now and then it asks for many keys at once, the same one twice, too.
    fn more(&mut self, keyspace: KeyspaceId, action: &Action) -> Vec<Action> {
        let puts = match action {
            Action::Put { .. } => true,
            Action::Get { .. } => false,
            Action::Scan { .. } | Action::Shard(_) => return Vec::new(),
        };
        if !self.chance.happens(0.25) {
            return Vec::new();
        }
        let count = 1 + self.chance.below(12);
        let another = |_| {
            let key = self.chance.pick(&self.keys).clone();
            match puts {
                true => self.put(keyspace, key),
                false => Action::Get { key },
            }
        };
        (0..count).map(another).collect()
    }

    fn scan(&mut self, key: Key) -> Action {
        let end = self.chance.pick(&self.keys).clone();
        Action::Scan {
            start: self.chance.happens(0.5).then_some(key),
            end: self.chance.happens(0.5).then_some(end),
            limit: 1 + self.chance.below(10) as u32,
        }
    }

    fn level(&mut self, replicas: u8) -> Level {
        match self.chance.below(100) {
            0..60 => Level::Quorum,
            60..75 => Level::One,
            75..85 => Level::All,
            85..90 if replicas >= 2 => Level::Two,
            90..95 if replicas >= 3 => Level::Three,
            _ => Level::Count(1 + self.chance.below(u64::from(replicas)) as u8),
        }
    }
}

/// The next value of a client, which nobody else uses.
fn value(client: u32, values: &mut u64, chance: &mut Chance) -> Bytes {
    *values += 1;
    let mut value = format!("c{client}-{values}").into_bytes();
    // Now and then one that travels in chunks.
    if chance.happens(0.005) {
        value.resize(100 << 10, b'.');
    }
    Bytes::from(value)
}
