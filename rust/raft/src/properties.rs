//! Property tests: random clients, networks, disks and crashes against real servers.
//!
//! [`invariants`] defines the properties; they are checked after every step. All disks are slow, so that
//! crashes find writes in flight; messages are reordered, duplicated and lost. At the end all faults are
//! healed, and then the group must make progress. Each deliberate mistake of [`Bugs`] must violate a
//! property.

use std::time::Duration;

use quorate_checker::figure3::Verdict;
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::ids::NodeId;
use quorate_testing::Crash;
use quorate_testing::seeds::{outcome, seeds};
use rand_core::Rng as _;

use super::testing::{Cluster, Group as _, Setup};
use super::transcripts::bug;
use crate::event::ReadLevel;
use crate::sessions::Request;
use invariants::{Invariants, PendingOperation};

mod invariants;
mod stability;

const STEPS: usize = 1000;
/// Each mistake must be caught within this many runs.
const CAUGHT_WITHIN: u64 = 4000;
const TIMEOUT: Duration = Duration::from_millis(700);

struct Run {
    cluster: Cluster,
    invariants: Invariants,
    rng: Rng,
    /// Elections are frequent, and many fail.
    turbulent: bool,
    /// Servers that fail are restarted in the same process.
    in_place: bool,
    /// The last sequence number of each session.
    sequences: std::collections::BTreeMap<u64, u64>,
}

impl Run {
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut rng = rng_from_seed(seed);
        let mut setup = Setup::of(if rng.next_u64().is_multiple_of(4) { 5 } else { 3 });
        setup.bugs = bugs;
        setup.seed = seed;
        let settings = &mut setup.settings;
        if rng.next_u64().is_multiple_of(2) {
            settings.append_bytes = 1;
        }
        settings.append_window = 2;
        let turbulent = rng.next_u64().is_multiple_of(3);
        if !rng.next_u64().is_multiple_of(3) {
            settings.snapshot_every = 4 + rng.next_u64() % 8;
            settings.retained_entries = rng.next_u64() % 4;
            settings.chunk_bytes = 100;
            settings.chunk_window = 2;
        }
        settings.full_pause = Duration::from_millis(30);
        let mut cluster = setup.stopped();
        cluster.record = seed.is_multiple_of(8);
        for node in cluster.nodes.values_mut() {
            node.disk.held = true;
        }
        cluster.start_all();
        Run {
            cluster,
            invariants: Invariants::default(),
            turbulent,
            in_place: bugs.has(Bug::RestartedInPlace),
            rng,
            sequences: std::collections::BTreeMap::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn node(&mut self) -> NodeId {
        let nodes = self.cluster.nodes.len() as u64;
        NodeId(self.below(nodes) as u16 + 1)
    }

    /// Usually a leader.
    fn leader(&mut self) -> NodeId {
        let leads = |node: &NodeId| self.cluster.raft(*node).is_some_and(|raft| raft.is_leader());
        let leaders: Vec<NodeId> = self.cluster.names().into_iter().filter(leads).collect();
        if leaders.is_empty() || self.below(6) == 0 {
            return self.node();
        }
        leaders[self.below(leaders.len() as u64) as usize]
    }

    fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    fn step(&mut self) -> Verdict {
        let wire = self.cluster.wire.len() as u64;
        match self.below(200) {
            0..70 if wire > 0 => {
                let place = self.below(wire) as usize;
                self.cluster.deliver(place);
            }
            70..90 => drop(self.cluster.deliver_round(None, usize::MAX)),
            90..130 => {
                let (node, count) = (self.node(), self.below(3) as usize + 1);
                self.cluster.persist(node, count);
            }
            130..134 if self.turbulent => self.half_election(),
            130..138 => self.calm(),
            138..144 => {
                let by = self.millis(20);
                self.cluster.advance(by);
            }
            144 => {
                let by = self.millis(400);
                self.cluster.advance(by);
            }
            145..165 => self.propose(),
            165..175 => self.query(),
            175..178 if wire > 0 => {
                let place = self.below(wire) as usize;
                self.cluster.wire.remove(place);
            }
            178..182 if wire > 0 => {
                let place = self.below(wire) as usize;
                let again = self.cluster.wire[place].clone();
                self.cluster.wire.push(again);
            }
            182 => {
                let node = if self.below(2) == 0 {
                    self.leader()
                } else {
                    self.node()
                };
                let synced = self.below(3) as usize;
                self.crash(node, synced);
            }
            183..190 => {
                let node = self.node();
                if !self.cluster.is_up(node) {
                    self.invariants.restarted(node);
                    self.cluster.start(node);
                }
            }
            190 => {
                let (from, to, up) = (self.node(), self.node(), self.below(2) == 0);
                if from != to {
                    self.cluster.link(from, to, up);
                }
            }
            191 => {
                let lonely = self.leader();
                let others = self.cluster.names().into_iter().filter(|node| *node != lonely);
                let one_way = self.below(3) == 0;
                let pairs = |node| {
                    [
                        (lonely, node),
                        if one_way { (lonely, node) } else { (node, lonely) },
                    ]
                };
                self.cluster.cut = others.flat_map(pairs).collect();
            }
            192..194 => self.cluster.cut.clear(),
            194 => {
                let (node, full) = (self.node(), self.below(2) == 0);
                self.cluster.node(node).disk.full = full;
            }
            195 => {
                let node = self.node();
                self.cluster.node(node).disk.full = false;
            }
            196 => {
                let node = self.node();
                self.cluster.campaign(node);
            }
            _ => {
                let (node, skew) = (self.node(), self.below(4_000_000) as i64 - 2_000_000);
                self.cluster.node(node).skew_micros = skew;
            }
        }
        if self.cluster.wire.len() > 80 {
            self.cluster.wire.truncate(40);
        }
        self.invariants.check(&mut self.cluster)
    }

    /// Messages and disks are fast for a moment.
    fn calm(&mut self) {
        for _ in 0..4 {
            self.cluster.deliver_round(None, usize::MAX);
            for node in self.cluster.names() {
                self.cluster.persist(node, usize::MAX);
            }
        }
    }

    /// A server starts an election, and for a while only one other receives its messages.
    fn half_election(&mut self) {
        let (candidate, voter) = (self.node(), self.node());
        let running = |node| self.cluster.group(node).is_some();
        if candidate == voter || !running(candidate) || !running(voter) {
            return;
        }
        for node in self.cluster.names() {
            self.cluster.link(voter, node, false);
        }
        self.cluster.campaign(candidate);
        for _ in 0..self.below(9) {
            for (from, to) in [(candidate, voter), (voter, candidate)] {
                self.cluster.persist(from, usize::MAX);
                self.cluster.deliver_round(Some((from, to)), usize::MAX);
            }
        }
        for node in self.cluster.names() {
            self.cluster.link(voter, node, true);
        }
        if self.below(3) == 0 {
            self.crash(candidate, 0);
        }
    }

    fn crash(&mut self, node: NodeId, synced: usize) {
        if self.in_place && self.cluster.group(node).is_some() && self.below(2) == 0 {
            self.invariants.restarted(node);
            return self.cluster.restart_in_place(node);
        }
        let torn = self.below(3) as usize;
        let crash = Crash {
            synced,
            torn,
            flushed: 0,
        };
        self.cluster.crash(node, crash);
        self.cluster.node(node).disk.full = false;
    }

    fn propose(&mut self) {
        let next = self.cluster.operations + 1;
        let sessions = self.invariants.sessions.len() as u64;
        let request = match self.below(10) {
            0 => Request::Open { idle_ms: 2000 },
            1..6 if sessions > 0 => {
                let place = self.below(sessions) as usize;
                let session = self.invariants.sessions[place];
                let last = *self.sequences.entry(session.0).or_default();
                // A new command, or a retry of one of the last few.
                let sequence = match self.below(2) {
                    0 => last + 1,
                    _ => last.saturating_sub(self.below(3)).max(1),
                };
                self.sequences.insert(session.0, last.max(sequence));
                Request::InSession {
                    session,
                    sequence,
                    acknowledged: last.saturating_sub(6),
                    command: format!("add x 1 //{}#{sequence}", session.0).into(),
                }
            }
            _ => Request::Plain(format!("add x 1 //{next}").into()),
        };
        let node = self.leader();
        if self.cluster.group(node).is_some() {
            self.invariants
                .submitted(next, PendingOperation::Command(request.clone()));
            assert_eq!(self.cluster.propose(node, request, TIMEOUT), next);
        }
    }

    fn query(&mut self) {
        let node = if self.below(2) == 0 {
            self.node()
        } else {
            self.leader()
        };
        let level = if self.below(5) == 0 {
            ReadLevel::Stale
        } else {
            ReadLevel::Linearizable
        };
        if self.cluster.group(node).is_some() {
            let next = self.cluster.operations + 1;
            self.invariants
                .submitted(next, PendingOperation::Read(level, self.invariants.acknowledged));
            assert_eq!(self.cluster.query(node, "x", level, TIMEOUT), next);
        }
    }

    /// Heals all faults. Then one server must lead, a command must be executed, and all states must be equal.
    fn finish(mut self) -> Result<Invariants, String> {
        self.cluster.cut.clear();
        for node in self.cluster.names() {
            if !self.cluster.is_up(node) {
                self.invariants.restarted(node);
                self.cluster.start(node);
            }
            let disk = &mut self.cluster.node(node).disk;
            (disk.held, disk.full) = (false, false);
            self.cluster.persist(node, usize::MAX);
            for other in self.cluster.names() {
                self.cluster.link(node, other, true);
            }
        }
        self.cluster.live(Duration::from_secs(3));
        self.invariants.check(&mut self.cluster)?;
        let done = self.invariants.done.0;
        for node in self.cluster.names() {
            let next = self.cluster.operations + 1;
            let request = Request::Plain(format!("add x 1 //{next}").into());
            self.invariants
                .submitted(next, PendingOperation::Command(request.clone()));
            self.cluster.propose(node, request, TIMEOUT);
        }
        self.cluster.live(Duration::from_secs(1));
        self.invariants.check(&mut self.cluster)?;
        self.invariants.end()?;
        if self.invariants.done.0 != done + 1 {
            return Err(format!(
                "liveness: {} leaders after healing",
                self.invariants.done.0 - done
            ));
        }
        let applied = |node| {
            self.cluster
                .group(node)
                .and_then(|group| group.state())
                .map(|state| state.applied())
        };
        let all: Vec<_> = self.cluster.names().into_iter().map(applied).collect();
        if all.iter().any(|one| *one != all[0] || one.is_none()) {
            return Err(format!("liveness: applied {all:?} after healing"));
        }
        for recording in self.cluster.into_recordings() {
            recording.replay();
        }
        Ok(self.invariants)
    }
}

/// Runs a seed; returns the violated property, if any. A failed assertion of a server counts as one.
fn run(seed: u64, bugs: Bugs) -> Result<Invariants, String> {
    let story = || {
        let mut run = Run::new(seed, bugs);
        for step in 0..STEPS {
            run.step()
                .map_err(|property| format!("seed {seed} step {step}: {property}"))?;
        }
        run.finish()
            .map_err(|property| format!("seed {seed} at the end: {property}"))
    };
    outcome(story).map_err(|property| match property.starts_with("seed") {
        true => property,
        false => format!("seed {seed}: {property}"),
    })
}

#[test]
fn hold_under_faults() {
    let seeds = seeds("RAFT", 2000);
    let count = seeds.end - seeds.start;
    let mut done = (0, 0);
    for seed in seeds {
        match run(seed, Bugs::none()) {
            Ok(invariants) => done = (done.0 + invariants.done.0, done.1 + invariants.done.1),
            Err(property) => panic!("{property}"),
        }
    }
    println!("{count} runs: {done:?} commands and reads were answered");
    // Ensure that the runs tested something.
    assert!(
        count < 50 || done.0 > 10 * count && done.1 > 3 * count,
        "only {done:?} commands and reads were answered"
    );
}

/// A run violates a property with this mistake.
fn caught(name: &str) {
    let bugs = bug(name).expect("a bug");
    let found = (0..CAUGHT_WITHIN).find_map(|seed| run(seed, bugs).err());
    match found {
        Some(property) => println!("{name}: {property}"),
        None => panic!("{name} is not caught within {CAUGHT_WITHIN} seeds"),
    }
}

#[test]
fn a_vote_that_is_not_durable_is_caught() {
    caught("vote_not_durable");
}

#[test]
fn committing_an_old_term_by_counting_is_caught() {
    caught("old_term_commit");
}

#[test]
fn a_stale_read_index_is_caught() {
    caught("stale_read_index");
}

#[test]
fn an_acknowledgement_before_the_disk_is_caught() {
    caught("ack_before_durable");
}

#[test]
fn sessions_lost_at_a_snapshot_are_caught() {
    caught("sessions_lost_at_snapshot");
}

#[test]
fn a_server_restarted_in_place_is_caught() {
    caught("restarted_in_place");
}
