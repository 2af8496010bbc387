//! A simulation: one run of one seed.
//!
//! A run has four phases. *Setup*: the nodes start, a client creates keyspaces of both modes. *Nemesis*: clients run their
//! workloads while the schedule injects faults. *Quiet*: all faults are healed, the clients continue for a while, and then
//! every shard of a consensus keyspace must respond. *Closing*: every key of a quorum keyspace is read at ALL, so that read
//! repair makes the replicas equal, and then the invariants check the end of the run.

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

use crate::history::{Action, Tally};
use crate::invariants::{self};
use crate::observation::Violation;
use crate::rng::SimRng;
use crate::schedule::Schedule;
use crate::workload::{Step, Workload};
use crate::world::{Recordings, World, WorldConfig};

/// How many keyspaces are created during the nemesis.
const CREATIONS: u32 = 6;

/// The configuration of a run. Together with the program, it determines every event of the run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The seed of all random decisions.
    pub seed: u64,
    /// The number of nodes.
    pub nodes: u16,
    /// The number of clients.
    pub clients: u32,
    /// How long the nemesis injects faults.
    pub nemesis: Duration,
    /// Deliberate bugs of the roles, to verify that they are detected.
    pub bugs: Bugs,
    /// Whether the inputs of all roles are recorded, for replays.
    pub record: bool,
    /// Whether all events are hashed, to compare two runs.
    pub hash: bool,
    /// The number of last events to keep as text.
    pub keep_lines: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 0,
            nodes: 5,
            clients: 4,
            nemesis: Duration::from_secs(8),
            bugs: Bugs::none(),
            record: false,
            hash: false,
            keep_lines: 0,
        }
    }
}

/// The report of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The hash over all its events, if enabled. Runs with equal hashes are equal.
    pub hash: Option<u64>,
    /// The number of events.
    pub steps: u64,
    /// Its duration in virtual time.
    pub lasted: Duration,
    /// The outcomes of its operations.
    pub tally: Tally,
    /// The violated invariant, if any.
    pub violation: Option<Violation>,
    /// The last events, if enabled.
    pub lines: Vec<String>,
}

/// A run in progress. The world can be inspected between the phases.
pub struct Simulation {
    config: Config,
    world: World,
    schedule: Schedule,
    keyspaces: Vec<KeyspaceSettings>,
    keys: Vec<Key>,
    /// Whether clients alter keyspaces.
    alters: bool,
}

impl Simulation {
    /// Creates the run with this configuration.
    ///
    /// # Panics
    /// If there are no nodes or no clients.
    pub fn new(config: Config) -> Self {
        assert!(config.clients > 0, "a simulation needs a client");
        let mut rng = SimRng::named(config.seed, "simulation");
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
        let schedule = Schedule::seeded(config.seed, &nodes, config.nemesis);
        // Few keys, so that writes conflict.
        let count = *rng.pick(&[1, 3, 8, 20]);
        let keys = (0..count)
            .map(|n| Key::try_from(format!("key-{n}").as_str()).expect("a short key"))
            .collect();
        Simulation {
            keyspaces: keyspaces(config.nodes as u8, &mut rng),
            alters: SimRng::named(config.seed, "alterations").chance(0.4),
            config,
            world,
            schedule,
            keys,
        }
    }

    /// Runs one seed from beginning to end. A panic, usually of a role, counts as a violation.
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
                what: what.unwrap_or_else(|| "a panic without a message".to_owned()),
            });
        }
        report
    }

    /// Runs all four phases. Stops at the first violation.
    pub fn play(&mut self) {
        for phase in [Self::set_up, Self::nemesis, Self::quiet, Self::close] {
            if self.world.violation().is_none() {
                phase(self);
            }
        }
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The schedule of faults.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Ends the run and returns the recordings.
    pub fn into_recordings(self) -> Recordings {
        self.world.into_recordings()
    }

    /// The report of the run so far.
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
    /// If a cluster without faults fails to do so.
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

    /// Advances time; returns false, for use in conditions.
    fn wait(&mut self, time: Duration) -> bool {
        self.world.run_until(self.world.now() + time);
        false
    }

    /// The keyspaces that clients work on.
    fn served(&self) -> Vec<Keyspace> {
        let keyspaces = self.world.keyspaces();
        let own = keyspaces.filter(|keyspace| !keyspace.settings.name.starts_with("surplus"));
        own.cloned().collect()
    }

    /// Runs the workloads and injects the faults.
    fn nemesis(&mut self) {
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
        // From time to time a client creates another keyspace, which is not used otherwise.
        for number in 0..CREATIONS {
            let client = number % self.config.clients;
            let settings = match number % 3 {
                2 => KeyspaceSettings::consensus(&format!("surplus-{number}"), 1),
                _ => KeyspaceSettings::quorum(&format!("surplus-{number}"), 1),
            };
            self.world
                .create_keyspace(client, settings.clone(), Duration::from_secs(1));
            self.wait(self.config.nemesis / (2 * CREATIONS));
            // And another client drops some of them, and creates them again under the same name.
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
            self.wait(self.config.nemesis / (2 * CREATIONS));
        }
    }

    /// All faults are healed; the clients continue, then stop.
    fn quiet(&mut self) {
        self.wait(Duration::from_secs(3));
        for client in 0..self.config.clients {
            self.world.set_workload(client, None);
        }
        self.world.begin_probing();
        self.probe_shards();
        // Wait for the longest deadlines.
        self.wait(Duration::from_secs(4));
    }

    /// Reads every key at ALL, so that read repair reaches every replica, then checks the invariants.
    fn close(&mut self) {
        if self.world.has_corrupt_record() {
            // A read at ALL repairs a corrupt record, or fails if no intact copy exists.
            self.read_everything();
        }
        self.world.begin_closing();
        self.read_everything();
        if self.world.violation().is_none() {
            self.world.finish();
        }
    }

    /// Reads all keys sequentially, and waits for the repairs.
    fn read_everything(&mut self) {
        let quorum = |keyspace: &Keyspace| keyspace.settings.mode == Mode::Quorum;
        for keyspace in self.served().into_iter().filter(quorum) {
            for key in self.keys.clone() {
                self.perform(keyspace.id, Action::Get { key }, Level::All);
            }
        }
        self.wait(Duration::from_secs(2));
    }

    /// Performs one operation of a client and waits for its result.
    fn perform(&mut self, keyspace: KeyspaceId, action: Action, level: Level) {
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

    /// Checks that every shard, including unused ones, accepts a write and serves it.
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
                self.perform(keyspace, Action::Shard(request), Level::Quorum);
            }
        }
    }
}

/// The keyspaces of a run: of both modes, each on some and on all nodes.
fn keyspaces(nodes: u8, rng: &mut SimRng) -> Vec<KeyspaceSettings> {
    let replicas: BTreeSet<u8> = [nodes.min(3), nodes].into();
    let quorum = replicas
        .iter()
        .map(|replicas| KeyspaceSettings::quorum(&format!("r{replicas}"), *replicas));
    let mut keyspaces: Vec<KeyspaceSettings> = quorum.collect();
    // Often so small that logs are compacted frequently, and members need snapshots.
    let snapshot_every = *rng.pick(&[10, 30, 200, SNAPSHOT_EVERY]);
    for (replicas, shards) in [(nodes.min(3), 1), (nodes, 2 + rng.below(2) as u16)] {
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
            "{} steps in {:.3} s of virtual time; operations: {succeeded} succeeded, {failed} failed, \
             {unknown} unknown, {waiting} waiting",
            self.steps,
            self.lasted.as_secs_f64()
        )
    }
}
