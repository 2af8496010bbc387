//! What must hold whatever happens: random clients, networks, disks and crashes against the shards and gates of a keyspace.
//!
//! [`judge`] says what the laws are; they are checked after every step. At the end everything is repaired, and then every
//! group must make progress, and all its members come to have the same rows. Each deliberate mistake of
//! [`RaftBugs`](crate::raft::bugs::RaftBugs) must break a law.
//!
//! `SHARD_SEEDS=10000 cargo test -p quorate-protocol shard::laws` tries more seeds; `SHARD_SEED=7` tries one, which is how a
//! failure is replayed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng as _;

use super::lab::{KEYSPACE, Lab, Setup, Weather};
use crate::api::{Request, Response, Stamp};
use crate::bugs::Bugs;
use crate::error::Error;
use crate::ids::NodeId;
use crate::key::Key;
use crate::raft::alphabet::ReadLevel;
use crate::raft::bugs::RaftBugs;
use crate::raft::settings::Timing;
use crate::raft::types::GroupId;
use crate::ring::HashKind;
use crate::role::{Rng, rng_from_seed};
use crate::shard::command::{Command, Condition, Write};
use judge::Judge;

mod figure3;
mod judge;
mod model;

/// Why a run is no good.
type Verdict = Result<(), String>;

/// Of the lab's ring.
const HASH: HashKind = HashKind::Murmur3;
const CLIENTS: usize = 5;
const RUN: Duration = Duration::from_millis(2500);
const TIMEOUT: Duration = Duration::from_millis(900);
/// Each mistake must show in so many runs.
const CAUGHT_WITHIN: u64 = 1500;

/// A client has one request under way at a time.
#[derive(Default)]
struct Client {
    waits: Option<u64>,
    /// By group: the session, and the number of its last command.
    sessions: BTreeMap<GroupId, (u64, u64)>,
    /// A command of a session whose outcome is not known.
    retry: Option<(GroupId, Request, u32)>,
    /// What it has last seen of keys.
    versions: BTreeMap<(GroupId, Key), Option<u64>>,
}

struct Run {
    lab: Lab,
    judge: Judge,
    rng: Rng,
    clients: Vec<Client>,
    turbulent: bool,
    /// Leaders do not live long enough to commit much (Figure 8).
    hunting: bool,
    values: u64,
    steps: u64,
}

impl Run {
    fn new(seed: u64, bugs: RaftBugs) -> Self {
        let mut rng = rng_from_seed(seed);
        let mut below = |bound: u64| rng.next_u64() % bound;
        let (nodes, members) = [(3, 3), (3, 3), (4, 3), (5, 5)][below(4) as usize];
        let mut setup = Setup::of(nodes, members);
        if below(3) == 0 {
            let last = (nodes - members + 1..=nodes).rev().map(NodeId);
            setup.groups.push(last.collect());
        }
        setup.bugs = Bugs {
            raft: bugs,
            ..Bugs::default()
        };
        setup.seed = seed;
        let turbulent = below(3) > 0;
        setup.weather = match turbulent {
            true => Weather {
                latency: (100, 8_000 + below(20_000)),
                lost: below(100),
                twice: below(60),
                disk: Some((100, 1_000 + below(20_000))),
                settling: Some((1_000, 100_000)),
            },
            false => Weather {
                latency: (100, 2_000),
                lost: 0,
                twice: 5,
                disk: Some((50, 3_000)),
                settling: Some((1_000, 60_000)),
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
        let hunting = turbulent && (below(4) == 0 || bugs.old_term_commit);
        if hunting {
            (settings.append_bytes, settings.append_window) = (1, 1);
        }
        if below(4) > 0 {
            settings.snapshot_every = 4 + below(20);
            settings.kept_entries = below(6);
            settings.chunk_bytes = 60 + below(300) as u32;
            settings.chunk_window = 2;
        }
        let mut lab = Lab::stopped(setup);
        for node in lab.nodes() {
            lab.start(node);
        }
        Run {
            lab,
            judge: Judge::default(),
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
        let nodes = self.lab.nodes();
        self.one_of(&nodes)
    }

    fn leader(&mut self) -> NodeId {
        let groups = self.lab.groups();
        let group = self.one_of(&groups);
        let leads = |node: &NodeId| {
            let raft = self.lab.shard(*node, group).and_then(|shard| shard.raft());
            raft.is_some_and(|raft| raft.is_leader())
        };
        let leaders: Vec<NodeId> = self.lab.nodes().into_iter().filter(leads).collect();
        match leaders.is_empty() {
            true => self.node(),
            false => self.one_of(&leaders),
        }
    }

    // ---- time ----

    fn live(&mut self, by: Duration) -> Verdict {
        let until = self.lab.now + by;
        while self.lab.step(until) {
            self.steps += 1;
            self.look()?;
        }
        self.lab.now = until;
        self.look()
    }

    fn look(&mut self) -> Verdict {
        self.judge.look(&mut self.lab)?;
        if self.steps.is_multiple_of(300) {
            self.judge.look_closely(&self.lab)?;
        }
        for (operation, asked, result) in std::mem::take(&mut self.judge.replies) {
            let client = self
                .clients
                .iter_mut()
                .find(|client| client.waits == Some(operation));
            if let Some(client) = client {
                client.waits = None;
                client.learn(asked.group, &asked.request, &result);
            }
        }
        Ok(())
    }

    fn story(&mut self) -> Verdict {
        let end = self.lab.now + RUN;
        while self.lab.now < end {
            for client in 0..CLIENTS {
                if self.clients[client].waits.is_none() && self.below(3) > 0 {
                    self.act(client);
                    self.look()?;
                }
            }
            let often = match (self.turbulent, self.hunting) {
                (true, false) => 6,
                (true, true) => 15,
                (false, _) => 20,
            };
            if self.below(often) == 0 {
                self.trouble()?;
            }
            if self.hunting && self.below(2) == 0 {
                self.hunt()?;
            }
            let pause = self.below(15_000);
            self.live(Duration::from_micros(pause))?;
        }
        self.heal()
    }

    // ---- clients ----

    /// One of six keys of the group.
    fn own_key(&mut self, group: GroupId) -> Key {
        let number = self.below(6) as usize;
        let keyspace = &self.lab.keyspace;
        let keys = (0..).map(|number| Key::of(format!("k{number}")).expect("a short key"));
        let mine = |key: &Key| keyspace.groups[keyspace.shard_of_key(HASH, key)].id == group;
        keys.filter(mine).nth(number).expect("there is no end of keys")
    }

    /// Seldom that of another group, which this one must refuse.
    fn key(&mut self, group: GroupId) -> Key {
        let groups = self.lab.groups();
        let group = match self.below(60) {
            0 => self.one_of(&groups),
            _ => group,
        };
        self.own_key(group)
    }

    /// Where entries of the group come from.
    fn source(&self, group: GroupId) -> String {
        let keyspace = &self.lab.keyspace;
        let mut sources = (0..).map(|number| format!("lab{number}"));
        let mine = |source: &String| keyspace.groups[keyspace.shard_of_source(HASH, source)].id == group;
        sources.find(mine).expect("there is no end of sources")
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        let length = self.below(60) as usize;
        format!("v{}{:.<length$}", self.values, "").into()
    }

    fn write(&mut self, client: usize, group: GroupId, key: Key) -> Write {
        let seen = self.clients[client].versions.get(&(group, key.clone())).copied();
        let condition = match (self.below(5), seen) {
            (0, _) => Condition::Absent,
            (1, Some(Some(version))) => Condition::Version(version),
            (2, Some(None)) => Condition::Absent,
            _ => Condition::Any,
        };
        let value = (self.below(6) > 0).then(|| self.value());
        Write {
            key,
            value,
            condition,
        }
    }

    fn command(&mut self, client: usize, group: GroupId) -> Command {
        match self.below(8) {
            0 => Command::Append {
                source: self.source(group),
                data: self.value(),
            },
            1 | 2 => {
                let mut keys: Vec<Key> = (0..2 + self.below(2)).map(|_| self.key(group)).collect();
                keys.sort_unstable();
                keys.dedup();
                let writes = keys.into_iter().map(|key| self.write(client, group, key));
                Command::Write(writes.collect())
            }
            _ => {
                let key = self.key(group);
                Command::Write(vec![self.write(client, group, key)])
            }
        }
    }

    fn act(&mut self, client: usize) {
        let node = self.node();
        if !self.lab.is_up(node) {
            return;
        }
        let groups = self.lab.groups();
        let (group, request) = match self.clients[client].retry.clone() {
            Some((group, request, _)) => (group, request),
            None => {
                let group = self.one_of(&groups);
                (group, self.request(client, group))
            }
        };
        let left = self.below(4);
        let timeout = TIMEOUT / (left as u32 * 2 + 1);
        let operation = self.lab.operations + 1;
        let by = self.lab.now + timeout;
        self.judge.asked(operation, node, request.clone(), group, by);
        self.clients[client].waits = Some(operation);
        assert_eq!(self.lab.ask(node, group, request, timeout), operation);
    }

    fn request(&mut self, client: usize, group: GroupId) -> Request {
        let keyspace = KEYSPACE;
        let level = match self.below(4) {
            0 => ReadLevel::Stale,
            _ => ReadLevel::Linearizable,
        };
        match self.below(20) {
            0..4 => Request::Read {
                keyspace,
                group,
                keys: vec![self.key(group)],
                level,
            },
            4..8 => Request::Read {
                keyspace,
                group,
                keys: (0..2 + self.below(4)).map(|_| self.key(group)).collect(),
                level,
            },
            8 => Request::ReadRange {
                keyspace,
                group,
                start: (self.below(2) == 0).then(|| self.key(group)),
                end: (self.below(2) == 0).then(|| self.key(group)),
                after_start: self.below(2) == 0,
                limit: 1 + self.below(6) as u32,
                level,
            },
            9 => {
                let last = self.judge.committed(group);
                Request::ReadLog {
                    keyspace,
                    group,
                    after: self.below(last + 1),
                    limit: 1 + self.below(6) as u32,
                    level,
                }
            }
            10..14 => Request::Propose {
                keyspace,
                group,
                command: self.command(client, group),
                session: None,
            },
            _ => {
                let command = self.command(client, group);
                let rare = self.below(30) == 0;
                let Some((session, last)) = self.clients[client].sessions.get_mut(&group) else {
                    let idle_ms = self.one_of(&[60, 400, 5000]);
                    return Request::OpenSession {
                        keyspace,
                        group,
                        idle_ms,
                    };
                };
                let session = *session;
                if rare {
                    return Request::CloseSession {
                        keyspace,
                        group,
                        session,
                    };
                }
                *last += 1;
                Request::Propose {
                    keyspace,
                    group,
                    command,
                    session: Some(Stamp {
                        session,
                        sequence: *last,
                        acknowledged: *last - 1,
                    }),
                }
            }
        }
    }

    // ---- trouble ----

    fn trouble(&mut self) -> Verdict {
        match self.below(20) {
            0..5 => {
                let node = if self.below(2) == 0 {
                    self.leader()
                } else {
                    self.node()
                };
                self.crash(node);
            }
            5..11 => {
                let node = self.node();
                if !self.lab.is_up(node) {
                    self.lab.start(node);
                }
            }
            11 | 12 => {
                let lonely = self.leader();
                let one_way = self.below(3);
                // The others may notice at once, and have another leader before this one knows.
                let noticed = self.below(2) == 0;
                for other in self.lab.nodes().into_iter().filter(|node| *node != lonely) {
                    if noticed {
                        self.lab.link(other, lonely, false);
                    }
                    if one_way != 1 {
                        self.lab.cut.insert((lonely, other));
                    }
                    if one_way != 2 {
                        self.lab.cut.insert((other, lonely));
                    }
                }
            }
            13..15 => self.lab.cut.clear(),
            15 => {
                let (from, to, up) = (self.node(), self.node(), self.below(3) > 0);
                if from != to && (!up || self.lab.is_up(to)) {
                    self.lab.link(from, to, up);
                }
            }
            16 => {
                let (node, full) = (self.node(), self.below(2) == 0);
                self.lab.machine(node).disk.full = full;
            }
            17 => {
                let node = self.node();
                self.lab.machine(node).disk.full = false;
            }
            18 => {
                let (node, skew) = (self.node(), self.below(400_000) as i64 - 200_000);
                self.lab.machine(node).skew_micros = skew;
            }
            _ => {
                for node in self.lab.nodes() {
                    for other in self.lab.nodes() {
                        if node != other && self.lab.is_up(other) {
                            self.lab.link(node, other, true);
                        }
                    }
                }
            }
        }
        self.look()
    }

    /// A leader that has not committed all that it has crashes; another member comes back in its place.
    fn hunt(&mut self) -> Verdict {
        let groups = self.lab.groups();
        let group = self.one_of(&groups);
        let caught = |node: &NodeId| {
            let raft = self.lab.shard(*node, group).and_then(|shard| shard.raft());
            raft.is_some_and(|raft| raft.is_leader() && raft.log().commit() < raft.log().last().index)
        };
        let nodes = self.lab.nodes();
        if let Some(leader) = nodes.iter().copied().find(caught) {
            let down: Vec<NodeId> = nodes.into_iter().filter(|node| !self.lab.is_up(*node)).collect();
            self.crash(leader);
            if !down.is_empty() {
                let back = self.one_of(&down);
                self.lab.start(back);
            }
        }
        self.look()
    }

    fn crash(&mut self, node: NodeId) {
        if self.lab.is_up(node) {
            let (synced, settled) = (self.below(3) as usize, self.below(4) as usize);
            self.judge.crashed(node);
            self.lab.crash(node, synced, settled);
            self.lab.machine(node).disk.full = false;
        }
    }

    /// In a healthy group everyone knows that its state is young.
    fn ages(&mut self) -> Verdict {
        for group in self.lab.groups() {
            for node in self.lab.nodes() {
                let Some(shard) = self.lab.shard(node, group) else {
                    continue;
                };
                let age = shard.raft().zip(shard.applied());
                let age = age.and_then(|(raft, applied)| raft.age_micros(applied, self.lab.now));
                if age.is_none_or(|micros| micros > 40_000) {
                    return Err(format!(
                        "liveness: {node} does not know its state of {group} to be young after healing: {age:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everything is repaired. Then every group takes a command at every node, and its members come to have the same rows.
    fn heal(&mut self) -> Verdict {
        self.lab.cut.clear();
        *self.lab.weather() = Weather {
            disk: Some((50, 500)),
            settling: Some((100, 5_000)),
            ..Weather::FAIR
        };
        for node in self.lab.nodes() {
            self.lab.machine(node).disk.full = false;
            if !self.lab.is_up(node) {
                self.lab.start(node);
            }
        }
        for node in self.lab.nodes() {
            for other in self.lab.nodes() {
                if node != other {
                    self.lab.link(node, other, true);
                }
            }
        }
        self.live(Duration::from_millis(1000))?;
        for group in self.lab.groups() {
            for node in self.lab.nodes() {
                let write = Write {
                    key: self.own_key(group),
                    value: Some(self.value()),
                    condition: Condition::Any,
                };
                let request = Request::Propose {
                    keyspace: KEYSPACE,
                    group,
                    command: Command::Write(vec![write]),
                    session: None,
                };
                let operation = self.lab.operations + 1;
                let by = self.lab.now + TIMEOUT;
                self.judge.asked(operation, node, request.clone(), group, by);
                self.lab.ask(node, group, request, TIMEOUT);
                let done = self.judge.done.0;
                self.live(Duration::from_millis(50))?;
                if self.judge.done.0 <= done {
                    return Err(format!(
                        "liveness: {group} takes no command at {node} after healing"
                    ));
                }
            }
        }
        self.live(Duration::from_millis(500))?;
        self.judge.look_closely(&self.lab)?;
        self.judge.end()?;
        self.ages()?;
        for group in self.lab.groups() {
            let applied = |node: &NodeId| {
                let shard = self.lab.shard(*node, group)?;
                Some((*node, shard.applied()?.0, shard.in_progress()))
            };
            let nodes = self.lab.nodes();
            let all: Vec<_> = nodes.iter().filter_map(applied).collect();
            let wanted = (self.judge.committed(group), 0);
            if all.iter().any(|(_, applied, asks)| (*applied, *asks) != wanted) {
                return Err(format!(
                    "liveness: {group} should be at {wanted:?} after healing, but: {all:?}"
                ));
            }
        }
        let gates = self
            .lab
            .nodes()
            .into_iter()
            .filter_map(|node| self.lab.gate(node));
        match gates.map(|gate| gate.in_progress()).sum() {
            0 => Ok(()),
            left => Err(format!("{left} requests are in progress that nobody waits for")),
        }
    }
}

impl Client {
    fn learn(&mut self, group: GroupId, request: &Request, result: &Result<Response, Error>) {
        let tries = self.retry.take().map_or(0, |(_, _, tries)| tries);
        match (request, result) {
            (_, Ok(Response::SessionOpened { session, .. })) => {
                self.sessions.insert(group, (*session, 0));
            }
            (Request::CloseSession { .. }, _) | (_, Err(Error::SessionExpired(_))) => {
                self.sessions.remove(&group);
            }
            (
                Request::Propose { session: Some(_), .. },
                Err(
                    Error::OutcomeUnknown { .. }
                    | Error::Unavailable { .. }
                    | Error::Overloaded(_)
                    | Error::StorageFull(_),
                ),
            ) => match tries {
                // It gives up, and may not go on with this session: it cannot say what it has answers to.
                12 => drop(self.sessions.remove(&group)),
                _ => self.retry = Some((group, request.clone(), tries + 1)),
            },
            (Request::Read { keys, .. }, Ok(Response::Records { records, .. })) => {
                for (key, record) in keys.iter().zip(records) {
                    let version = record.as_ref().map(|record| record.version);
                    self.versions.insert((group, key.clone()), version);
                }
            }
            _ => {}
        }
    }
}

/// A run with this seed, or which law it breaks. An assertion of the roles themselves is one, too.
fn run(seed: u64, bugs: RaftBugs) -> Result<(u64, u64, u64), String> {
    let story = || {
        let mut run = Run::new(seed, bugs);
        match run.story() {
            Ok(()) => Ok(run.judge.done),
            Err(law) => Err(format!("seed {seed} at {}: {law}", run.lab.now.0)),
        }
    };
    catch_unwind(AssertUnwindSafe(story)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("seed {seed}: {}", text.unwrap_or_default()))
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn hold_whatever_happens() {
    let seeds = match number("SHARD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHARD_SEEDS").unwrap_or(400),
    };
    let count = seeds.end - seeds.start;
    let mut done = (0, 0, 0);
    for seed in seeds {
        match run(seed, RaftBugs::default()) {
            Ok((commands, reads, snapshots)) => {
                done = (done.0 + commands, done.1 + reads, done.2 + snapshots);
            }
            Err(law) => panic!(
                "{law}\nreplay it: SHARD_SEED={seed} cargo test -p quorate-protocol --lib shard::laws::hold -- --nocapture"
            ),
        }
    }
    println!("{count} runs: {done:?} commands, reads and snapshots");
    // Or else nothing was tested.
    assert!(
        count < 50 || done.0 > 30 * count && done.1 > 30 * count && done.2 > count / 4,
        "only {done:?} commands, reads and snapshots in {count} runs"
    );
}

/// A run breaks a law with this mistake.
fn caught(bugs: RaftBugs) {
    let found = (0..CAUGHT_WITHIN).find_map(|seed| run(seed, bugs).err());
    match found {
        Some(law) => println!("{law}"),
        None => panic!("{bugs:?} is not caught within {CAUGHT_WITHIN} seeds"),
    }
}

#[test]
fn a_vote_that_is_not_durable_is_caught() {
    caught(RaftBugs {
        vote_not_durable: true,
        ..RaftBugs::default()
    });
}

#[test]
fn committing_an_old_term_by_counting_is_caught() {
    caught(RaftBugs {
        old_term_commit: true,
        ..RaftBugs::default()
    });
}

#[test]
fn a_stale_read_index_is_caught() {
    caught(RaftBugs {
        stale_read_index: true,
        ..RaftBugs::default()
    });
}

#[test]
fn an_age_that_is_only_the_leader_s_silence_is_caught() {
    caught(RaftBugs {
        age_by_silence: true,
        ..RaftBugs::default()
    });
}

#[test]
fn an_acknowledgement_before_the_disk_is_caught() {
    caught(RaftBugs {
        ack_before_durable: true,
        ..RaftBugs::default()
    });
}

#[test]
fn sessions_lost_at_a_snapshot_are_caught() {
    caught(RaftBugs {
        sessions_lost_at_snapshot: true,
        ..RaftBugs::default()
    });
}
