//! One server and its disk, and the effect of inputs on them.
//!
//! A group has many states, but they combine few states of servers. So each state of a server is stored once,
//! under a number, and the effect of an input on it is computed once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bugs;
use quorate_core::contract::rng_from_seed;
use quorate_core::ids::NodeId;
use quorate_core::store::Priority;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_testing::memory::Memory;
use quorate_testing::seeds::outcome;
use quorate_testing::{Crash, Store as _};

use crate::Raft;
use crate::action::Action;
use crate::configuration::Configuration;
use crate::entry::Entry;
use crate::recovery::Recovery;
use crate::server::{Recovered, Turn};
use crate::settings::{Settings, Setup, Timing};
use crate::status::Activity;
use crate::testing::{Envelope, GROUP, envelope};
use crate::types::{LogIndex, Term};

/// The number of servers.
pub(super) const SERVERS: u16 = 3;
/// The initial time of all clocks.
const START_TIME: u64 = 1_000_000;
const HEARTBEAT: Duration = Duration::from_millis(1);

/// Only the server uses it.
type Disk = quorate_testing::Disk<Memory, ()>;

/// A server and its disk.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Server {
    raft: Raft,
    disk: Disk,
    /// The writes in flight of this process.
    awaited: BTreeSet<u64>,
    /// The number of heartbeat rounds since it started: its clock.
    beats: u64,
}

/// The inputs of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Input {
    /// Its election timeout passes.
    Campaign,
    /// It leads, and heartbeats are due.
    Beat,
    /// It leads, and a client proposes the command with this number.
    Propose(u8),
    /// The message with this number arrives.
    Message(u32),
    /// Its disk completes the oldest write in flight.
    Persist,
    /// It crashes, loses its writes in flight, and recovers from its disk.
    Crash,
    /// The mistake of [`Bug::RestartedInPlace`](quorate_core::bugs::Bug::RestartedInPlace).
    RestartInPlace,
}

/// What the properties inspect.
pub(super) struct View {
    pub(super) node: NodeId,
    pub(super) term: Term,
    pub(super) leads: bool,
    pub(super) log: Vec<Entry>,
    pub(super) commit: u64,
    /// The term on its disk.
    pub(super) durable: Term,
    pub(super) in_flight: bool,
}

impl quorate_checker::figure3::Server for &View {
    type Node = NodeId;
    type Entry = Entry;

    fn node(&self) -> NodeId {
        self.node
    }

    fn term(&self) -> u64 {
        self.term.0
    }

    fn leads(&self) -> bool {
        self.leads
    }

    fn base(&self) -> u64 {
        0
    }

    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn commit(&self) -> u64 {
        self.commit
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        self.log.get(index.checked_sub(1)? as usize)
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        match index {
            0 => Some(0),
            _ => self.entry(index).map(|entry| entry.term.0),
        }
    }
}

/// The effect of an input.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) server: u32,
    pub(super) sent: Vec<u32>,
}

/// All states of servers and messages so far, by number.
pub(super) struct Catalog {
    bugs: Bugs,
    servers: Vec<(Server, View)>,
    messages: Vec<Envelope>,
    server_numbers: BTreeMap<u64, u32>,
    message_numbers: BTreeMap<u64, u32>,
    steps: BTreeMap<(u32, Input), Result<Step, String>>,
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Server {
    fn started(node: NodeId, disk: Disk, bugs: Bugs) -> (Self, Vec<Action>) {
        let timing = Timing {
            // No voter is sticky: a deaf voter behaves like a lost message.
            election_min: Duration::ZERO,
            election_max: Duration::from_secs(1000),
            heartbeat: HEARTBEAT,
            stagger: HEARTBEAT,
        };
        let settings = Settings {
            timing,
            // One entry per append: anything may happen between two.
            append_bytes: 1,
            append_window: 2,
            ..Settings::default()
        };
        let setup = Setup {
            me: node,
            group: GROUP,
            initial: Configuration::of_voters((1..=SERVERS).map(NodeId)),
            settings,
            bugs,
        };
        let recovered = recover(&disk);
        let mut actions = Vec::new();
        let mut turn = Turn {
            now: at(0),
            rng: &mut rng_from_seed(0),
            actions: &mut actions,
        };
        let raft = Raft::start(setup, recovered, &mut turn);
        let server = Server {
            raft,
            disk,
            awaited: BTreeSet::new(),
            beats: 0,
        };
        (server, actions)
    }

    fn step(&self, input: Input, messages: &[Envelope], bugs: Bugs) -> (Self, Vec<Envelope>) {
        let me = self.raft.me();
        if matches!(input, Input::Crash | Input::RestartInPlace) {
            let mut disk = self.disk.clone();
            if input == Input::Crash {
                disk.crash(Crash::default());
            }
            let (mut server, actions) = Server::started(me, disk, bugs);
            let sent = server.perform(actions);
            return (server, sent);
        }
        let mut next = self.clone();
        next.beats += u64::from(input == Input::Beat);
        let mut actions = Vec::new();
        let mut turn = Turn {
            now: at(next.beats),
            // The same each time: how long timeouts are makes no difference here.
            rng: &mut rng_from_seed(0),
            actions: &mut actions,
        };
        match input {
            Input::Campaign => next.raft.campaign_now(&mut turn),
            Input::Beat => next.raft.timer(&mut turn),
            Input::Propose(number) => {
                let proposed = next
                    .raft
                    .propose(vec![Bytes::copy_from_slice(&[b'a' + number])], &mut turn);
                proposed.expect("a leader takes commands");
            }
            Input::Message(number) => {
                let Envelope { from, message, .. } = messages[number as usize].clone();
                next.raft.message(from.node, message, &mut turn);
            }
            Input::Persist => {
                let (flight, _) = next.disk.sync().expect("a write is in flight");
                if next.awaited.remove(&flight.token) {
                    next.raft.persisted(&[flight.token], &mut turn);
                }
            }
            Input::Crash | Input::RestartInPlace => unreachable!("handled above"),
        }
        next.reset_metrics();
        let sent = next.perform(actions);
        (next, sent)
    }

    /// Counts and times for the metrics decide nothing, but would make one state many.
    fn reset_metrics(&mut self) {
        self.raft.activity = Activity::default();
        self.raft.leaderless = None;
    }

    fn perform(&mut self, actions: Vec<Action>) -> Vec<Envelope> {
        let mut sent = Vec::new();
        for output in actions {
            match output {
                Action::Send { to, message } => sent.push(envelope(self.raft.me(), to, message)),
                Action::Persist { token, priority, ops } => {
                    let background = priority == Priority::Bulk;
                    self.disk.submit((), token, background, ops);
                    self.awaited.insert(token);
                }
                Action::SetTimer { .. } | Action::Notice(_) | Action::Apply(_) => {}
                other => panic!("unexpected action {other:?}"),
            }
        }
        sent
    }

    fn view(&self) -> View {
        View {
            node: self.raft.me(),
            term: self.raft.term(),
            leads: self.raft.is_leader(),
            log: self.raft.log().range(LogIndex(1)).cloned().collect(),
            commit: self.raft.log().commit().0,
            durable: recover(&self.disk).hard.term,
            in_flight: self.disk.flights().len() > 0,
        }
    }
}

fn at(beats: u64) -> Now {
    Now {
        instant: Instant(START_TIME) + HEARTBEAT * beats as u32,
        wall: WallTime(START_TIME),
    }
}

fn recover(disk: &Disk) -> Recovered {
    let mut recovery = Recovery::new(GROUP);
    loop {
        let rows = disk.store.read(&recovery.query()).expect("records are intact");
        if let Some(done) = recovery.read(rows).expect("the disk has valid records") {
            return done.recovered;
        }
    }
}

impl Catalog {
    pub(super) fn new(bugs: Bugs) -> Self {
        Catalog {
            bugs,
            servers: Vec::new(),
            messages: Vec::new(),
            server_numbers: BTreeMap::new(),
            message_numbers: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// The servers of a new group.
    pub(super) fn start(&mut self) -> [u32; SERVERS as usize] {
        [1, 2, 3].map(|node| self.number(Server::started(NodeId(node), Disk::default(), self.bugs).0))
    }

    pub(super) fn bugs(&self) -> Bugs {
        self.bugs
    }

    pub(super) fn view(&self, server: u32) -> &View {
        &self.servers[server as usize].1
    }

    pub(super) fn message(&self, message: u32) -> &Envelope {
        &self.messages[message as usize]
    }

    /// How many different servers and messages there are.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.servers.len(), self.messages.len())
    }

    /// What an input makes of a server. An assertion that fails in it is the error.
    pub(super) fn step(&mut self, server: u32, input: Input) -> Result<Step, String> {
        if let Some(step) = self.steps.get(&(server, input)) {
            return step.clone();
        }
        let before = &self.servers[server as usize].0;
        let done = outcome(|| Ok(before.step(input, &self.messages, self.bugs)));
        let step = match done {
            Ok((after, sent)) => {
                let sent = sent
                    .into_iter()
                    .map(|envelope| self.message_number(envelope))
                    .collect();
                let server = self.number(after);
                Ok(Step { server, sent })
            }
            Err(assertion) => Err(format!("assertion: {assertion}")),
        };
        self.steps.insert((server, input), step.clone());
        step
    }

    fn number(&mut self, server: Server) -> u32 {
        let next = self.servers.len() as u32;
        let number = *self.server_numbers.entry(fingerprint(&server)).or_insert(next);
        if number == next {
            let view = server.view();
            self.servers.push((server, view));
        }
        number
    }

    fn message_number(&mut self, envelope: Envelope) -> u32 {
        let next = self.messages.len() as u32;
        let number = *self.message_numbers.entry(fingerprint(&envelope)).or_insert(next);
        if number == next {
            self.messages.push(envelope);
        }
        number
    }
}
