//! What a simulated client wants: operations on a few keys, at mixed levels, some of them in answer to what it read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::core::CallOptions;
use quorate_protocol::api::Response;
use quorate_protocol::ids::{KeyspaceId, NodeId};
use quorate_protocol::key::Key;
use quorate_protocol::level::Level;
use quorate_protocol::versions::{Context, VersionVector};

use crate::chance::Chance;
use crate::history::{Action, Operation};

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In which keyspace.
    pub keyspace: KeyspaceId,
    /// What.
    pub action: Action,
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
    keyspaces: Vec<(KeyspaceId, u8)>,
    nodes: Vec<NodeId>,
    keys: Vec<Key>,
    /// What it last saw of each key: read-modify-writes carry it, even when it is stale by now.
    contexts: BTreeMap<(KeyspaceId, Key), Context>,
    values: u64,
    /// The longest pause between two operations.
    pause: Duration,
}

impl Workload {
    /// A client that works on `keys` of these keyspaces (each with its number of replicas).
    ///
    /// # Panics
    /// If there is no keyspace or no key.
    pub fn new(
        seed: u64,
        client: u32,
        keyspaces: Vec<(KeyspaceId, u8)>,
        nodes: Vec<NodeId>,
        keys: Vec<Key>,
    ) -> Self {
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
        Workload {
            client,
            chance,
            keyspaces,
            nodes,
            keys,
            contexts: BTreeMap::new(),
            values: 0,
            pause,
        }
    }

    /// What it does next.
    pub fn think(&mut self) -> Step {
        let (keyspace, replicas) = *self.chance.pick(&self.keyspaces);
        let key = self.chance.pick(&self.keys).clone();
        let action = match self.chance.below(100) {
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
            50..55 => Action::Put {
                value: None,
                context: self.contexts.get(&(keyspace, key.clone())).cloned(),
                key,
            },
            55..95 => Action::Get { key },
            _ => self.scan(key),
        };
        let level = self.level(replicas);
        let timeout = *self.chance.pick(&[50, 500, 500, 2_000]);
        let mut options = CallOptions::timeout(Duration::from_millis(timeout));
        if self.chance.happens(0.2) {
            options = options.on(*self.chance.pick(&self.nodes));
        }
        Step {
            keyspace,
            action,
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
                _ => {}
            }
        }
        self.chance.between(Duration::ZERO, self.pause)
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        let mut value = format!("c{}-{}", self.client, self.values).into_bytes();
        // Now and then one that travels in chunks.
        if self.chance.happens(0.005) {
            value.resize(100 << 10, b'.');
        }
        Bytes::from(value)
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
