//! The workload of a simulated client: operations on a few keys, at mixed levels, including read-modify-writes.

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

use crate::history::{Action, Operation};
use crate::rng::SimRng;
use shards::Shards;

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The action.
    pub action: Action,
    /// Further actions of the same request: puts beside a put, or gets beside a get.
    pub more: Vec<Action>,
    /// The level.
    pub level: Level,
    /// Timeout and routing.
    pub options: CallOptions,
}

/// The workload of one client.
#[derive(Clone, Debug)]
pub struct Workload {
    client: u32,
    rng: SimRng,
    /// The keyspaces in quorum mode, with their number of replicas.
    keyspaces: Vec<(KeyspaceId, u8)>,
    shards: Shards,
    nodes: Vec<NodeId>,
    keys: Vec<Key>,
    /// The context last seen of each key, used in read-modify-writes even if it is stale.
    contexts: BTreeMap<(KeyspaceId, Key), Context>,
    values: u64,
    /// The node that receives all its requests to shards, if it is pinned.
    home: Option<NodeId>,
    /// The maximum pause between two operations.
    pause: Duration,
}

impl Workload {
    /// The workload of a client on `keys` of these keyspaces, on a ring with this hash.
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
            "a workload needs keyspaces and keys"
        );
        let mut rng = SimRng::named(seed, &format!("client {client}"));
        let pause = *rng.pick(&[
            Duration::from_millis(2),
            Duration::from_millis(20),
            Duration::from_millis(100),
        ]);
        // Clients pinned to a follower switch leaders with it; others when the old leader redirects them.
        let home = rng.chance(0.3).then(|| *rng.pick(&nodes));
        Workload {
            client,
            rng,
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

    /// The next operation.
    pub fn next_operation(&mut self) -> Step {
        match !self.shards.is_empty() && self.rng.chance(0.5) {
            true => self.next_shard_request(),
            false => self.next_quorum_request(),
        }
    }

    fn next_shard_request(&mut self) -> Step {
        let (client, values) = (self.client, &mut self.values);
        let value = |rng: &mut SimRng| value(client, values, rng);
        let (of_other_mode, _) = *self.rng.pick(&self.keyspaces);
        let request = self
            .shards
            .next_operation(&self.keys, of_other_mode, &mut self.rng, value);
        let keyspace = request.keyspace().expect("shards are asked for data");
        let timeout = *self.rng.pick(&[200, 1_000, 2_000]);
        let options = self.options(timeout, 0.1);
        Step {
            keyspace,
            action: Action::Shard(request),
            more: Vec::new(),
            level: Level::Quorum,
            options: self.home.map_or(options, |home| options.on(home)),
        }
    }

    /// The timeout, and sometimes a pinned node.
    fn options(&mut self, timeout_ms: u64, pinned: f64) -> CallOptions {
        let options = CallOptions::timeout(Duration::from_millis(timeout_ms));
        match self.rng.chance(pinned) {
            true => options.on(*self.rng.pick(&self.nodes)),
            false => options,
        }
    }

    fn next_quorum_request(&mut self) -> Step {
        let (keyspace, replicas) = *self.rng.pick(&self.keyspaces);
        let key = self.rng.pick(&self.keys).clone();
        let action = match self.rng.below(100) {
            0..55 => self.put(keyspace, key),
            55..95 => Action::Get { key },
            _ => self.scan(key),
        };
        let more = self.more(keyspace, &action);
        let level = self.level(replicas);
        let timeout = *self.rng.pick(&[50, 500, 500, 2_000]);
        let options = self.options(timeout, 0.2);
        // Sometimes it uses a keyspace of the other mode by mistake.
        let mistaken = self
            .rng
            .chance(0.01)
            .then(|| self.shards.any(&mut self.rng))
            .flatten();
        Step {
            keyspace: mistaken.unwrap_or(keyspace),
            action,
            more,
            level,
            options,
        }
    }

    /// Records a result and returns the pause until the next operation.
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
                (Action::Put { key, .. }, Response::Written(written)) if self.rng.chance(0.5) => {
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
        self.rng.between(Duration::ZERO, self.pause)
    }

    fn value(&mut self) -> Bytes {
        value(self.client, &mut self.values, &mut self.rng)
    }

    /// A put without a context, with one, or a delete.
    fn put(&mut self, keyspace: KeyspaceId, key: Key) -> Action {
        match self.rng.below(55) {
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
        if !self.rng.chance(0.25) {
            return Vec::new();
        }
        let count = 1 + self.rng.below(12);
        let another = |_| {
            let key = self.rng.pick(&self.keys).clone();
            match puts {
                true => self.put(keyspace, key),
                false => Action::Get { key },
            }
        };
        (0..count).map(another).collect()
    }

    fn scan(&mut self, key: Key) -> Action {
        let end = self.rng.pick(&self.keys).clone();
        Action::Scan {
            start: self.rng.chance(0.5).then_some(key),
            end: self.rng.chance(0.5).then_some(end),
            limit: 1 + self.rng.below(10) as u32,
        }
    }

    fn level(&mut self, replicas: u8) -> Level {
        match self.rng.below(100) {
            0..60 => Level::Quorum,
            60..75 => Level::One,
            75..85 => Level::All,
            85..90 if replicas >= 2 => Level::Two,
            90..95 if replicas >= 3 => Level::Three,
            _ => Level::Count(1 + self.rng.below(u64::from(replicas)) as u8),
        }
    }
}

/// The next value of a client, unique in the run.
fn value(client: u32, values: &mut u64, rng: &mut SimRng) -> Bytes {
    *values += 1;
    let mut value = format!("c{client}-{values}").into_bytes();
    // Sometimes a value large enough to be sent in chunks.
    if rng.chance(0.005) {
        value.resize(100 << 10, b'.');
    }
    Bytes::from(value)
}
