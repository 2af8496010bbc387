//! Property tests of the control plane: random clients, networks, disks and crashes against node and control
//! roles.
//!
//! After every step the properties of Figure 3 must hold, servers that have applied the same entries must be
//! in the same state, a number that was assigned to a keyspace must never be assigned to another, and a
//! node's knowledge must never go back while it runs. Every request must be answered once, in time. At the
//! end all faults are healed; then a keyspace can be created, all nodes know and serve the same state, and
//! answers to clients are true: a keyspace whose creation was acknowledged exists unless a client requested
//! its drop, one whose drop was acknowledged does not, and one whose creation was definitely rejected never
//! did.
//!
//! `CONTROL_SEEDS=1000` tries more seeds, `CONTROL_SEED=7` replays one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use quorate_checker::figure3::{Figure3, Verdict};
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::level::Level;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{KeyspaceChange, KeyspaceSettings};
use quorate_raft::Raft;
use quorate_raft::entry::Entry;
use quorate_raft::types::LogIndex;
use quorate_role_testing::{Observed, Output};
use quorate_testing::seeds::{outcome, seeds};
use quorate_testing::{Crash, Profile};
use quorate_versions::WriteId;
use rand_core::Rng as _;

use super::testing::{Cluster, ControlPlane as _, TraceEvent, stopped};

const RUN: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_millis(1500);
/// The maximum delay of an answer after its deadline.
const SLACK: Duration = Duration::from_millis(50);

/// A pending request.
struct PendingOperation {
    node: NodeId,
    request: Request,
    deadline: u64,
    /// Its keyspace was known to exist, and no client had requested its drop.
    exists: bool,
}

/// What clients know of a name; each is created once.
#[derive(Default)]
struct Name {
    created: bool,
    refused: bool,
    /// Whether a client has requested its drop.
    to_drop: bool,
    dropped: bool,
}

struct Run {
    cluster: Cluster,
    rng: Rng,
    figure3: Figure3<NodeId, Entry>,
    /// The state after each entry.
    states: BTreeMap<LogIndex, u64>,
    /// The names of assigned numbers.
    given: BTreeMap<KeyspaceId, String>,
    /// The knowledge of each node since it was started.
    known: BTreeMap<NodeId, u64>,
    open: BTreeMap<u64, PendingOperation>,
    names: BTreeMap<String, Name>,
    answered: u64,
}

impl Run {
    fn new(seed: u64, bugs: Bugs) -> Self {
        let mut rng = rng_from_seed(seed);
        let nodes = [1, 3, 3, 3, 5][(rng.next_u64() % 5) as usize];
        let mut cluster = stopped(nodes, seed, bugs);
        let mut below = |bound: u64| rng.next_u64() % bound;
        cluster.profile = Profile {
            latency: Some((100, 1_000 + below(15_000))),
            lost: below(80),
            repeated: below(80),
            disk: Some((50, 500 + below(10_000))),
            flushing: Some((1_000, 50_000)),
        };
        cluster.record = seed.is_multiple_of(8);
        if below(2) == 0 {
            cluster.scramble(seed);
        }
        cluster.start_all();
        Run {
            cluster,
            rng,
            figure3: Figure3::default(),
            states: BTreeMap::new(),
            given: BTreeMap::new(),
            known: BTreeMap::new(),
            open: BTreeMap::new(),
            names: BTreeMap::new(),
            answered: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn node(&mut self) -> NodeId {
        let nodes = self.cluster.names();
        nodes[self.below(nodes.len() as u64) as usize]
    }

    fn raft(&self, node: NodeId) -> Option<&Raft> {
        self.cluster.control(node)?.raft()
    }

    /// Usually the leader.
    fn leader(&mut self) -> NodeId {
        let leads = |node: &NodeId| self.raft(*node).is_some_and(|raft| raft.is_leader());
        match self.cluster.names().into_iter().find(leads) {
            Some(leader) if self.below(4) > 0 => leader,
            _ => self.node(),
        }
    }

    // ---- invariants ----

    fn check(&mut self) -> Verdict {
        for node in self.cluster.names() {
            self.server(node)?;
        }
        let now = self.cluster.now;
        for event in std::mem::take(&mut self.cluster.trace) {
            if let TraceEvent::Output(_, Output::Reply(operation, result)) = event {
                let submitted = self.open.remove(&operation);
                let submitted =
                    submitted.ok_or_else(|| format!("op{operation} was answered more than once"))?;
                self.answer(&submitted, result)
                    .map_err(|why| format!("op{operation} {:?}: {why}", submitted.request))?;
            }
        }
        let slack = SLACK.as_micros() as u64;
        match self
            .open
            .iter()
            .find(|(_, submitted)| submitted.deadline + slack < now)
        {
            Some((operation, submitted)) => Err(format!(
                "op{operation} was not answered in time: {:?} at {}",
                submitted.request, submitted.node
            )),
            None => Ok(()),
        }
    }

    fn server(&mut self, node: NodeId) -> Verdict {
        let Some(control) = self.cluster.control(node) else {
            return Ok(());
        };
        if let Some(why) = control.broken() {
            return Err(format!("{node} cannot start: {why}"));
        }
        if let Some(raft) = control.raft() {
            self.figure3.check(&Observed(node, raft))?;
        }
        if let Some((applied, state)) = control.applied() {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            let hash = hasher.finish();
            if *self.states.entry(applied).or_insert(hash) != hash {
                return Err(format!(
                    "state machine safety: {node} has a different state after {applied}"
                ));
            }
        }
        let known = control.known();
        let before = self.known.insert(node, known.generation());
        if before.is_some_and(|before| before > known.generation()) {
            return Err(format!("{node} knows less than before: {before:?}"));
        }
        for (id, keyspace) in known.keyspaces() {
            let name = &keyspace.settings.name;
            let first = self.given.entry(*id).or_insert_with(|| name.clone());
            if first != name {
                return Err(format!("{id} was assigned to {first}, and to {name}"));
            }
        }
        Ok(())
    }

    fn answer(&mut self, submitted: &PendingOperation, result: Result<Response, Error>) -> Verdict {
        self.answered += u64::from(result.is_ok());
        match (&submitted.request, &result) {
            (Request::CreateKeyspace(settings), _) => {
                let name = self.names.entry(settings.name.clone()).or_default();
                match &result {
                    Ok(Response::Keyspace { .. }) => name.created = true,
                    Err(error) => name.refused = error.is_definite(),
                    other => return Err(format!("was answered {other:?}")),
                }
            }
            (Request::DropKeyspace { name, .. }, Ok(_)) => {
                self.names.entry(name.clone()).or_default().dropped = true;
            }
            (Request::AlterKeyspace { name, .. }, Err(Error::NotFound(_))) => {
                if submitted.exists && !self.names[name].to_drop {
                    return Err("it was created, and not dropped".to_owned());
                }
            }
            (Request::ListKeyspaces, Ok(Response::Keyspaces(_))) | (_, Err(_)) => {}
            (Request::AlterKeyspace { .. }, Ok(_)) => {}
            (_, other) => return Err(format!("was answered {other:?}")),
        }
        Ok(())
    }

    // ---- actions ----

    fn live(&mut self, by: Duration) -> Verdict {
        let until = self.cluster.now + by.as_micros() as u64;
        while self.cluster.step(until) {
            self.check()?;
        }
        self.cluster.now = until;
        self.check()
    }

    fn ask(&mut self, node: NodeId, request: Request) {
        if self.cluster.is_up(node) {
            let deadline = self.cluster.now + TIMEOUT.as_micros() as u64;
            let exists = match &request {
                Request::AlterKeyspace { name, .. } => {
                    let name_facts = &self.names[name];
                    name_facts.created && !name_facts.to_drop
                }
                _ => false,
            };
            let submitted = PendingOperation {
                node,
                request: request.clone(),
                deadline,
                exists,
            };
            self.open.insert(self.cluster.operations + 1, submitted);
            self.cluster.ask(node, request, TIMEOUT);
        }
    }

    fn settings(&mut self, name: &str) -> KeyspaceSettings {
        let nodes = self.cluster.nodes.len() as u64;
        let replicas = 1 + self.below(nodes.min(3)) as u8;
        match self.below(2) {
            0 => KeyspaceSettings::quorum(name, replicas),
            _ => KeyspaceSettings {
                shards: 1 + self.below(3) as u16,
                ..KeyspaceSettings::consensus(name, replicas)
            },
        }
    }

    fn act(&mut self) {
        let node = self.node();
        let write_id = WriteId {
            client: 7,
            sequence: self.cluster.operations,
        };
        let names = self.names.len() as u64;
        let name = match names {
            0 => None,
            _ => {
                let place = self.below(names) as usize;
                self.names.keys().nth(place).cloned()
            }
        };
        let request = match (self.below(6), name) {
            (0, Some(name)) => {
                self.names.entry(name.clone()).or_default().to_drop = true;
                Request::DropKeyspace { name, write_id }
            }
            (1, Some(name)) => Request::AlterKeyspace {
                name,
                change: KeyspaceChange {
                    read_level: Some(Level::One),
                    write_level: None,
                    read_repair: None,
                },
                write_id,
            },
            (2, _) => Request::ListKeyspaces,
            _ => {
                let name = format!("k{}", self.cluster.operations);
                self.names.insert(name.clone(), Name::default());
                Request::CreateKeyspace(self.settings(&name))
            }
        };
        self.ask(node, request);
    }

    fn nemesis(&mut self) {
        match self.below(12) {
            0..3 => {
                let node = if self.below(2) == 0 {
                    self.leader()
                } else {
                    self.node()
                };
                let crash = Crash {
                    synced: self.below(3) as usize,
                    torn: self.below(3) as usize,
                    flushed: 0,
                };
                if self.cluster.is_up(node) {
                    self.cluster.crash(node, crash);
                    self.cluster.node(node).disk.full = false;
                    self.open.retain(|_, submitted| submitted.node != node);
                }
            }
            3..6 => {
                let node = self.node();
                self.start(node);
            }
            6 => {
                let lonely = self.leader();
                let (one_way, noticed) = (self.below(3), self.below(2) == 0);
                for other in self.cluster.names().into_iter().filter(|node| *node != lonely) {
                    if one_way != 1 {
                        self.cluster.cut.insert((lonely, other));
                    }
                    if one_way != 2 {
                        self.cluster.cut.insert((other, lonely));
                    }
                    if noticed {
                        self.cluster.link(other, lonely, false);
                        self.cluster.link(lonely, other, false);
                    }
                }
            }
            7 => self.reconnect(),
            8 => {
                let (node, full) = (self.node(), self.below(2) == 0);
                self.cluster.node(node).disk.full = full;
            }
            9 => {
                let node = self.node();
                self.cluster.node(node).disk.full = false;
            }
            10 => {
                let (from, to) = (self.node(), self.node());
                if from != to {
                    self.cluster.link(from, to, false);
                }
            }
            _ => {
                let (node, skew) = (self.node(), self.below(400_000) as i64 - 200_000);
                self.cluster.node(node).skew_micros = skew;
            }
        }
    }

    fn start(&mut self, node: NodeId) {
        if !self.cluster.is_up(node) {
            self.figure3.restarted(node);
            self.known.remove(&node);
            self.cluster.start(node);
        }
    }

    fn reconnect(&mut self) {
        self.cluster.cut.clear();
        for node in self.cluster.names() {
            for other in self.cluster.names() {
                if node != other && self.cluster.is_up(other) {
                    self.cluster.link(node, other, true);
                }
            }
        }
    }

    fn scenario(&mut self) -> Verdict {
        let end = self.cluster.now + RUN.as_micros() as u64;
        while self.cluster.now < end {
            if self.below(3) == 0 {
                self.act();
                self.check()?;
            }
            if self.below(6) == 0 {
                self.nemesis();
                self.check()?;
            }
            let pause = self.below(40_000);
            self.live(Duration::from_micros(pause))?;
        }
        self.heal()
    }

    /// Heals all faults; then all operations must succeed.
    fn heal(&mut self) -> Verdict {
        self.cluster.profile = Profile {
            disk: Some((50, 500)),
            ..Profile::STEADY
        };
        for node in self.cluster.names() {
            self.cluster.node(node).disk.full = false;
            self.start(node);
        }
        self.reconnect();
        self.live(Duration::from_secs(4))?;
        let before = self.answered;
        for node in self.cluster.names() {
            let name = format!("last{}", node.0);
            self.names.insert(name.clone(), Name::default());
            let settings = self.settings(&name);
            self.ask(node, Request::CreateKeyspace(settings));
        }
        self.live(Duration::from_secs(2))?;
        if self.answered != before + self.cluster.nodes.len() as u64 {
            return Err("liveness: keyspaces cannot be created after healing".to_owned());
        }
        self.end()
    }

    fn end(&self) -> Verdict {
        let nodes = self.cluster.names();
        let servers = nodes
            .iter()
            .filter_map(|node| Some(Observed(*node, self.raft(*node)?)));
        let servers: Vec<Observed> = servers.collect();
        self.figure3.check_thoroughly(&servers)?;
        let known = |node| self.cluster.control(node).expect("it runs").known();
        let first = known(nodes[0]);
        for node in &nodes {
            if known(*node) != first {
                return Err(format!("{node} knows something else than {}", nodes[0]));
            }
            let served: BTreeSet<KeyspaceId> = self.cluster.protocol.0.served[node].keys().copied().collect();
            if !served.iter().eq(first.keyspaces().keys()) {
                return Err(format!("{node} serves {served:?}"));
            }
            let pending = self
                .cluster
                .control(*node)
                .map_or(0, |control| control.in_progress());
            if pending > 0 {
                return Err(format!("{node} has {pending} leaked pending requests"));
            }
        }
        let there = first.keyspaces().values();
        let there: BTreeSet<&str> = there.map(|keyspace| keyspace.settings.name.as_str()).collect();
        for (name, name_facts) in &self.names {
            let is_there = there.contains(name.as_str());
            if name_facts.created && !name_facts.to_drop && !is_there {
                return Err(format!("{name} was created, but does not exist"));
            }
            if name_facts.dropped && is_there {
                return Err(format!("{name} was dropped, but exists"));
            }
            let ever = self.given.values().any(|given| given == name);
            if name_facts.refused && ever {
                return Err(format!("{name} was definitely rejected, but created"));
            }
        }
        Ok(())
    }
}

/// Runs a seed: returns the number of answered requests, or the violated property.
fn run(seed: u64, bugs: Bugs) -> Result<u64, String> {
    outcome(|| {
        let mut run = Run::new(seed, bugs);
        run.scenario()
            .map_err(|why| format!("at {}: {why}", run.cluster.now))?;
        for recording in run.cluster.into_recordings() {
            recording.replay();
        }
        Ok(run.answered)
    })
    .map_err(|why| format!("seed {seed} {why}"))
}

#[test]
fn hold_under_faults() {
    let seeds = seeds("CONTROL", 200);
    let count = seeds.end - seeds.start;
    let mut answered = 0;
    for seed in seeds {
        match run(seed, Bugs::none()) {
            Ok(more) => answered += more,
            Err(why) => panic!("{why}\nreplay it: CONTROL_SEED={seed} cargo test control::properties"),
        }
    }
    println!("{count} runs: {answered} requests were answered");
    // Ensure that the runs tested something.
    assert!(count < 20 || answered > 20 * count, "only {answered} answers");
}

/// A mistake of the control plane's servers violates a property within this many seeds.
fn caught(bug: Bug) {
    let bugs = quorate_testing::bugs([bug]);
    let found = (0..60).find_map(|seed| run(seed, bugs).err());
    println!(
        "{bug:?}: {}",
        found.unwrap_or_else(|| panic!("{bug:?} is not caught"))
    );
}

#[test]
fn votes_that_are_not_durable_are_caught() {
    caught(Bug::VoteNotDurable);
}

#[test]
fn an_acknowledgement_before_the_disk_is_caught() {
    caught(Bug::RaftAckBeforeDurable);
}
