//! Property tests: random clients, networks, disks and crashes against the shards and forwarders of a
//! keyspace.
//!
//! [`invariants`] defines the properties; they are checked after every step. [`clients`] and [`nemesis`]
//! define the actions. At the end all faults are healed, and then every group must make progress, and all its
//! members must have equal rows. Each deliberate mistake of [`Bugs`](quorate_core::bugs::Bugs) must violate a
//! property.
//!
//! `SHARD_SEEDS=10000 cargo test -p quorate-consensus shard::properties` tries more seeds; `SHARD_SEED=7`
//! replays one.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_checker::figure3::Verdict;
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_protocol::api::Request;
use quorate_raft::settings::Timing;
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;
use quorate_testing::Profile;
use quorate_testing::seeds::{outcome, seeds};
use rand_core::Rng as _;

use super::testing::{Cluster, Consensus as _, Setup};
use invariants::Invariants;

mod clients;
mod invariants;
mod model;
mod nemesis;

/// The hash of the cluster's ring.
const HASH: HashKind = HashKind::Murmur3;
const CLIENTS: usize = 5;
const RUN: Duration = Duration::from_millis(2500);
const TIMEOUT: Duration = Duration::from_millis(900);
/// Each mistake must be caught within this many runs.
const CAUGHT_WITHIN: u64 = 1500;

/// A client has one pending request at a time.
#[derive(Default)]
struct Client {
    waits: Option<u64>,
    /// By group: the session, and the number of its last command.
    sessions: BTreeMap<GroupId, (u64, u64)>,
    /// A command in a session whose outcome is unknown.
    retry: Option<(GroupId, Request, u32)>,
    /// The last versions of keys that it has seen.
    versions: BTreeMap<(GroupId, Key), Option<u64>>,
}

struct Run {
    cluster: Cluster,
    invariants: Invariants,
    rng: Rng,
    clients: Vec<Client>,
    turbulent: bool,
    /// Leaders do not live long enough to commit much (Figure 8).
    hunting: bool,
    values: u64,
    steps: u64,
}

impl Run {
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut rng = rng_from_seed(seed);
        let mut below = |bound: u64| rng.next_u64() % bound;
        let (nodes, members) = [(3, 3), (3, 3), (4, 3), (5, 5)][below(4) as usize];
        let mut setup = Setup::of(nodes, members);
        if below(3) == 0 {
            let last = (nodes - members + 1..=nodes).rev().map(NodeId);
            setup.groups.push(last.collect());
        }
        setup.bugs = bugs;
        setup.seed = seed;
        let turbulent = below(3) > 0;
        setup.profile = match turbulent {
            true => Profile {
                latency: Some((100, 8_000 + below(20_000))),
                lost: below(100),
                repeated: below(60),
                disk: Some((100, 1_000 + below(20_000))),
                flushing: Some((1_000, 100_000)),
            },
            false => Profile {
                latency: Some((100, 2_000)),
                lost: 0,
                repeated: 5,
                disk: Some((50, 3_000)),
                flushing: Some((1_000, 60_000)),
            },
        };
        let settings = &mut setup.settings;
        settings.timing = Timing {
            election_min: Duration::from_millis(40),
            election_max: Duration::from_millis(80),
            heartbeat: Duration::from_millis(12),
            stagger: Duration::from_millis(5),
        };
        settings.full_pause = Duration::from_millis(30);
        settings.append_window = 2;
        if below(2) == 0 {
            settings.append_bytes = 1;
        }
        let hunting = turbulent && (below(4) == 0 || bugs.has(Bug::OldTermCommit));
        if hunting {
            (settings.append_bytes, settings.append_window) = (1, 1);
        }
        if below(4) > 0 {
            settings.snapshot_every = 4 + below(20);
            settings.retained_entries = below(6);
            settings.chunk_bytes = 60 + below(300) as u32;
            settings.chunk_window = 2;
        }
        let mut cluster = setup.stopped();
        cluster.record = seed.is_multiple_of(8);
        if below(2) == 0 {
            cluster.scramble(seed);
        }
        cluster.start_all();
        Run {
            cluster,
            invariants: Invariants::default(),
            rng,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            turbulent,
            hunting,
            values: 0,
            steps: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn node(&mut self) -> NodeId {
        let nodes = self.cluster.names();
        self.one_of(&nodes)
    }

    fn leader(&mut self) -> NodeId {
        let groups = self.cluster.groups();
        let group = self.one_of(&groups);
        let leads = |node: &NodeId| {
            let raft = self.cluster.shard(*node, group).and_then(|shard| shard.raft());
            raft.is_some_and(|raft| raft.is_leader())
        };
        let leaders: Vec<NodeId> = self.cluster.names().into_iter().filter(leads).collect();
        match leaders.is_empty() {
            true => self.node(),
            false => self.one_of(&leaders),
        }
    }

    // ---- time ----

    fn live(&mut self, by: Duration) -> Verdict {
        let until = self.cluster.now + by.as_micros() as u64;
        while self.cluster.step(until) {
            self.steps += 1;
            self.check()?;
        }
        self.cluster.now = until;
        self.check()
    }

    fn check(&mut self) -> Verdict {
        self.invariants.check(&mut self.cluster)?;
        if self.steps.is_multiple_of(300) {
            self.invariants.check_thoroughly(&self.cluster)?;
        }
        for (operation, submitted, result) in std::mem::take(&mut self.invariants.replies) {
            let client = self
                .clients
                .iter_mut()
                .find(|client| client.waits == Some(operation));
            if let Some(client) = client {
                client.waits = None;
                client.learn(submitted.group, &submitted.request, &result);
            }
        }
        Ok(())
    }

    fn scenario(&mut self) -> Verdict {
        let end = self.cluster.now + RUN.as_micros() as u64;
        while self.cluster.now < end {
            for client in 0..CLIENTS {
                if self.clients[client].waits.is_none() && self.below(3) > 0 {
                    self.act(client);
                    self.check()?;
                }
            }
            let often = match (self.turbulent, self.hunting) {
                (true, false) => 6,
                (true, true) => 15,
                (false, _) => 20,
            };
            if self.below(often) == 0 {
                self.nemesis()?;
            }
            if self.hunting && self.below(2) == 0 {
                self.hunt()?;
            }
            let pause = self.below(15_000);
            self.live(Duration::from_micros(pause))?;
        }
        self.heal()
    }
}

/// Runs a seed; returns the violated property, if any. A failed assertion of a role counts as one.
fn run(seed: u64, bugs: Bugs) -> Result<(u64, u64, u64), String> {
    let scenario = || {
        let mut run = Run::new(seed, bugs);
        match run.scenario() {
            Ok(()) => {
                for recording in run.cluster.into_recordings() {
                    recording.replay();
                }
                Ok(run.invariants.done)
            }
            Err(property) => Err(format!("seed {seed} at {}: {property}", run.cluster.now)),
        }
    };
    outcome(scenario).map_err(|property| match property.starts_with("seed") {
        true => property,
        false => format!("seed {seed}: {property}"),
    })
}

#[test]
fn hold_under_faults() {
    let seeds = seeds("SHARD", 400);
    let count = seeds.end - seeds.start;
    let mut done = (0, 0, 0);
    for seed in seeds {
        match run(seed, Bugs::none()) {
            Ok((commands, reads, snapshots)) => {
                done = (done.0 + commands, done.1 + reads, done.2 + snapshots);
            }
            Err(property) => panic!(
                "{property}\nreplay it: SHARD_SEED={seed} cargo test -p quorate-consensus --lib shard::properties::hold -- --nocapture"
            ),
        }
    }
    println!("{count} runs: {done:?} commands, reads and snapshots");
    // Ensure that the runs tested something.
    assert!(
        count < 50 || done.0 > 30 * count && done.1 > 30 * count && done.2 > count / 4,
        "only {done:?} commands, reads and snapshots in {count} runs"
    );
}

/// A run violates a property with this mistake.
fn caught(bugs: Bugs) {
    let found = (0..CAUGHT_WITHIN).find_map(|seed| run(seed, bugs).err());
    match found {
        Some(property) => println!("{property}"),
        None => panic!("{bugs:?} is not caught within {CAUGHT_WITHIN} seeds"),
    }
}

#[test]
fn a_vote_that_is_not_durable_is_caught() {
    caught(quorate_testing::bugs([Bug::VoteNotDurable]));
}

#[test]
fn committing_an_old_term_by_counting_is_caught() {
    caught(quorate_testing::bugs([Bug::OldTermCommit]));
}

#[test]
fn a_stale_read_index_is_caught() {
    caught(quorate_testing::bugs([Bug::StaleReadIndex]));
}

#[test]
fn an_age_that_is_only_the_leader_s_silence_is_caught() {
    caught(quorate_testing::bugs([Bug::AgeBySilence]));
}

#[test]
fn an_acknowledgement_before_the_disk_is_caught() {
    caught(quorate_testing::bugs([Bug::RaftAckBeforeDurable]));
}

#[test]
fn sessions_lost_at_a_snapshot_are_caught() {
    caught(quorate_testing::bugs([Bug::SessionsLostAtSnapshot]));
}
