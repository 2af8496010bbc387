//! A simulation: one seed, one run, one verdict.
//!
//! A run has four acts. *Setup*: the nodes start, a client creates keyspaces of both modes. *Trouble*: clients work while
//! the schedule breaks things. *Quiet*: everything is healed, the clients go on for a while, and then every shard of a
//! consensus keyspace must answer at once. *Closing*: every key of a quorum keyspace is read at ALL, so that read repair can
//! make the replicas equal, and then the invariants are asked about the end.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use quorate_client::core::CallOptions;
use quorate_core::bugs::Bugs;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::Instant;
use quorate_protocol::api::{ReadLevel, Request, Response};
use quorate_protocol::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings, Mode, SNAPSHOT_EVERY};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;

use crate::chance::Chance;
use crate::history::{Action, Tally};
use crate::invariants::{self};
use crate::observation::Violation;
use crate::schedule::Schedule;
use crate::workload::{Step, Workload};
use crate::world::{Recordings, World, WorldConfig};

/// So many keyspaces are created while things go wrong.
const CREATIONS: u32 = 6;

/// What to simulate. Together with the program, it decides every event of the run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u16,
    /// How many clients.
    pub clients: u32,
    /// How long things go wrong.
    pub trouble: Duration,
    /// Mistakes that the roles are to make; see whether they are noticed.
    pub bugs: Bugs,
    /// Whether the inputs of all roles are recorded, to be replayed.
    pub record: bool,
    /// Whether all events are hashed, to compare two runs.
    pub hash: bool,
    /// How many of the last events are kept as text.
    pub keep_lines: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 0,
            nodes: 5,
            clients: 4,
            trouble: Duration::from_secs(8),
            bugs: Bugs::none(),
            record: false,
            hash: false,
            keep_lines: 0,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The hash over all its events, if they were to be hashed. Two runs with the same one were the same.
    pub hash: Option<u64>,
    /// How many things happened.
    pub steps: u64,
    /// How long it took in its own time.
    pub lasted: Duration,
    /// How its operations ended.
    pub tally: Tally,
    /// The invariant that broke, if one did.
    pub violation: Option<Violation>,
    /// The last events, if they were to be kept.
    pub lines: Vec<String>,
}

/// A run that is under way. The world can be looked at between the acts.
pub struct Simulation {
    config: Config,
    world: World,
    schedule: Schedule,
    keyspaces: Vec<KeyspaceSettings>,
    keys: Vec<Key>,
    /// Whether somebody alters keyspaces.
    alters: bool,
}

impl Simulation {
    /// The run with this configuration, at its beginning.
    ///
    /// # Panics
    /// If there are no nodes or no clients.
    pub fn new(config: Config) -> Self {
        assert!(config.clients > 0, "a simulation needs a client");
        let mut chance = Chance::named(config.seed, "simulation");
        let world = World::new(
            WorldConfig {
                seed: config.seed,
                nodes: config.nodes,
                clients: config.clients,
                bugs: config.bugs,
                record: config.record,
                hash: config.hash,
                keep_lines: config.keep_lines,
                ..WorldConfig::default()
            },
            invariants::all(),
        );
        let nodes: Vec<NodeId> = world.nodes().collect();
        let schedule = Schedule::seeded(config.seed, &nodes, config.trouble);
        // Few keys, so that writes meet.
        let count = *chance.pick(&[1, 3, 8, 20]);
        let keys = (0..count)
            .map(|n| Key::try_from(format!("key-{n}").as_str()).expect("a short key"))
            .collect();
        Simulation {
            keyspaces: keyspaces(config.nodes as u8, &mut chance),
            alters: Chance::named(config.seed, "alterations").happens(0.4),
            config,
            world,
            schedule,
            keys,
        }
    }

    /// Runs one seed from beginning to end. A panic, of a role above all, is a broken invariant too.
    pub fn run(config: Config) -> Report {
        let mut simulation = Simulation::new(config);
        let outcome = catch_unwind(AssertUnwindSafe(|| simulation.play()));
        let mut report = simulation.report();
        if let Err(panic) = outcome {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            report.violation = Some(Violation {
                invariant: "no panic",
                at: simulation.world.now(),
                what: what.unwrap_or_else(|| "a panic without words".to_owned()),
            });
        }
        report
    }

    /// All four acts. Stops early when an invariant breaks.
    pub fn play(&mut self) {
        for act in [Self::set_up, Self::trouble, Self::quiet, Self::close] {
            if self.world.violation().is_none() {
                act(self);
            }
        }
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What goes wrong, and when.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Ends the run and gives what was recorded.
    pub fn into_recordings(self) -> Recordings {
        self.world.into_recordings()
    }

    /// What can be said about the run so far.
    pub fn report(&self) -> Report {
        Report {
            hash: self.world.hash(),
            steps: self.world.steps(),
            lasted: self.world.now().since(Instant(0)),
            tally: self.world.history().tally(),
            violation: self.world.violation().cloned(),
            lines: self.world.lines().map(str::to_owned).collect(),
        }
    }

    /// Creates the keyspaces.
    ///
    /// # Panics
    /// If a cluster without faults cannot do that.
    fn set_up(&mut self) {
        for settings in self.keyspaces.clone() {
            let created = (0..50).any(|_| {
                let timeout = Duration::from_secs(2);
                self.world.create_keyspace(0, settings.clone(), timeout);
                let answered = |world: &World| {
                    world
                        .creations()
                        .last()
                        .is_some_and(|(_, answer)| answer.is_some())
                };
                self.world.run_until_done(timeout * 2, answered);
                let last = self.world.creations().last();
                matches!(last, Some((_, Some(Ok(Response::Keyspace { .. })))))
                    || self.wait(Duration::from_millis(100))
            });
            assert!(
                created || self.world.violation().is_some(),
                "the keyspace could not be created: {:?}",
                self.world.creations()
            );
        }
    }

    /// Lets time pass; false, for use in conditions.
    fn wait(&mut self, time: Duration) -> bool {
        self.world.run_until(self.world.now() + time);
        false
    }

    /// The keyspaces that clients work on.
    fn served(&self) -> Vec<Keyspace> {
        let keyspaces = self.world.keyspaces();
        let own = keyspaces.filter(|keyspace| !keyspace.settings.name.starts_with("trouble"));
        own.cloned().collect()
    }

    /// Clients work, things break.
    fn trouble(&mut self) {
        let nodes: Vec<NodeId> = self.world.nodes().collect();
        for client in 0..self.config.clients {
            let workload = Workload::new(
                self.config.seed,
                client,
                (self.served(), self.world.hash_kind()),
                nodes.clone(),
                self.keys.clone(),
            );
            self.world.set_workload(client, Some(workload));
        }
        for (delay, fault) in self.schedule.faults.clone() {
            self.world.plan(delay, fault);
        }
        // Now and then one of them wants a keyspace more. Nothing else is done with it.
        for number in 0..CREATIONS {
            let client = number % self.config.clients;
            let settings = match number % 3 {
                2 => KeyspaceSettings::consensus(&format!("trouble-{number}"), 1),
                _ => KeyspaceSettings::quorum(&format!("trouble-{number}"), 1),
            };
            self.world
                .create_keyspace(client, settings.clone(), Duration::from_secs(1));
            self.wait(self.config.trouble / (2 * CREATIONS));
            // And somebody else wants some of them to go, and to come again under the same name.
            if number % 3 != 1 {
                let other = (number + 1) % self.config.clients;
                let patience = Duration::from_secs(1);
                if self.alters && settings.mode == Mode::Quorum {
                    let change = KeyspaceChange {
                        read_level: Some(Level::One),
                        ..KeyspaceChange::default()
                    };
                    self.world
                        .alter_keyspace(client, &settings.name, change, patience);
                }
                self.world.drop_keyspace(other, &settings.name, patience);
                self.world.create_keyspace(client, settings, patience);
            }
            self.wait(self.config.trouble / (2 * CREATIONS));
        }
    }

    /// Nothing breaks any more; the clients go on, then stop.
    fn quiet(&mut self) {
        self.wait(Duration::from_secs(3));
        for client in 0..self.config.clients {
            self.world.set_workload(client, None);
        }
        self.world.begin_probing();
        self.probe_shards();
        // The longest deadlines, and whatever waits behind them.
        self.wait(Duration::from_secs(4));
    }

    /// Every key is read at ALL, so that read repair reaches every replica; then the invariants have the last word.
    fn close(&mut self) {
        if self.world.has_rotted() {
            // A read at ALL heals a rotten record, or fails where there is nothing to heal it with.
            self.read_everything();
        }
        self.world.begin_closing();
        self.read_everything();
        if self.world.violation().is_none() {
            self.world.finish();
        }
    }

    /// Reads all keys, one after the other, and leaves time for the repairs.
    fn read_everything(&mut self) {
        let quorum = |keyspace: &Keyspace| keyspace.settings.mode == Mode::Quorum;
        for keyspace in self.served().into_iter().filter(quorum) {
            for key in self.keys.clone() {
                self.ask(keyspace.id, Action::Get { key }, Level::All);
            }
        }
        self.wait(Duration::from_secs(2));
    }

    /// A client does one thing, and has its answer.
    fn ask(&mut self, keyspace: KeyspaceId, action: Action, level: Level) {
        let options = CallOptions::default();
        if self.world.violation().is_some() {
            return;
        }
        let number = self.world.history().operations().len();
        let client = number as u32 % self.config.clients;
        self.world.invoke(
            client,
            Step {
                keyspace,
                action,
                more: Vec::new(),
                level,
                options,
            },
        );
        self.world.run_until_done(options.timeout * 2, |world| {
            world.history().operations()[number].completed.is_some()
        });
    }

    /// Every shard takes a write, also one that nobody has asked for anything before, and shows it.
    fn probe_shards(&mut self) {
        let shards: Vec<(KeyspaceId, Key, GroupId)> = self
            .world
            .groups()
            .map(|(keyspace, group)| {
                (
                    keyspace.id,
                    a_key_of(keyspace, group.id, self.world.hash_kind()),
                    group.id,
                )
            })
            .collect();
        for (keyspace, key, group) in shards {
            let write = Write {
                key: key.clone(),
                value: Some(Bytes::from(format!("probe of {group}"))),
                condition: Condition::Any,
            };
            let command = Command::Write(vec![write]);
            let propose = Request::Propose {
                keyspace,
                group,
                command,
                session: None,
            };
            let read = |level| Request::Read {
                keyspace,
                group,
                keys: vec![key.clone()],
                level,
            };
            for request in [propose, read(ReadLevel::Linearizable), read(ReadLevel::Stale)] {
                self.ask(keyspace, Action::Shard(request), Level::Quorum);
            }
        }
    }
}

/// The keyspaces of a run: of both modes, and both on some and on all nodes.
fn keyspaces(nodes: u8, chance: &mut Chance) -> Vec<KeyspaceSettings> {
    let replicas: BTreeSet<u8> = [nodes.min(3), nodes].into();
    let quorum = replicas
        .iter()
        .map(|replicas| KeyspaceSettings::quorum(&format!("r{replicas}"), *replicas));
    let mut keyspaces: Vec<KeyspaceSettings> = quorum.collect();
    // Often so small that logs are compacted, and members need snapshots, all the time.
    let snapshot_every = *chance.pick(&[10, 30, 200, SNAPSHOT_EVERY]);
    for (replicas, shards) in [(nodes.min(3), 1), (nodes, 2 + chance.below(2) as u16)] {
        keyspaces.push(KeyspaceSettings {
            shards,
            snapshot_every,
            ..KeyspaceSettings::consensus(&format!("c{replicas}s{shards}"), replicas)
        });
    }
    keyspaces
}

/// A key that belongs to a shard.
fn a_key_of(keyspace: &Keyspace, group: GroupId, hash: HashKind) -> Key {
    let keys = (0u32..).map(|number| Key::of(format!("probe-{number}")).expect("a short key"));
    let belongs = |key: &Key| keyspace.groups[keyspace.shard_of(hash.token_of(key.partition()))].id == group;
    keys.into_iter().find(belongs).expect("every shard has keys")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            succeeded,
            failed,
            unknown,
            waiting,
        } = self.tally;
        if let Some(hash) = self.hash {
            write!(f, "hash {hash:016x}, ")?;
        }
        write!(
            f,
            "{} steps in {:.3} s of its own time; operations: {succeeded} succeeded, {failed} failed, \
             {unknown} unknown, {waiting} waiting",
            self.steps,
            self.lasted.as_secs_f64()
        )
    }
}
