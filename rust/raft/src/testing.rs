//! An in-memory group: the adapter for a [`Cluster`](quorate_testing::Cluster) of servers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_checker::figure3::Server;
use quorate_core::bugs::Bugs;
use quorate_core::contract::{Rng, Role as _};
use quorate_core::ids::NodeId;
use quorate_core::store::Priority;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_testing::memory::Memory;
use quorate_testing::node::Process;
use quorate_testing::protocol::AddressOf;
use quorate_testing::{Action, Address, Clock, Hosted, Input, Profile, Protocol, encoded};

use crate::action::Notice;
use crate::configuration::Configuration;
use crate::entry::Entry;
use crate::event::{Effect, Event, Proposal, ProposeError, QueryError, ReadAnswer, ReadLevel, ReadRequest};
use crate::format::{self, FormatError};
use crate::machine::{Machine, StateMachine};
use crate::message::Message;
use crate::sessions::{Answer, Request};
use crate::settings::{self, Settings};
use crate::types::{GroupId, LogIndex, LogPosition};
use crate::{Raft, RaftGroup};
use serde::{Deserialize, Serialize};

pub(super) mod show;

/// The group that all tests use.
pub(super) const GROUP: GroupId = GroupId(1);

/// The servers of a group.
pub(super) type Cluster = quorate_testing::Cluster<Servers>;
/// A message in flight.
pub(super) type Envelope = quorate_testing::Envelope<NodeId, (), Message>;
/// An event of the trace.
pub(super) type TraceEvent = quorate_testing::TraceEvent<Servers>;

/// A message from one node to another.
pub(super) fn envelope(from: NodeId, to: NodeId, message: Message) -> Envelope {
    let server = |node| Address { node, role: () };
    Envelope {
        from: server(from),
        to: server(to),
        message,
    }
}

/// The result of a proposal.
pub(super) type Proposed = Result<(LogPosition, Answer), ProposeError>;
/// The result of a read.
pub(super) type Queried = Result<ReadAnswer, QueryError>;

/// What a test may observe of a server.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Proposed { operation: u64, result: Proposed },
    Queried { operation: u64, result: Queried },
    Notice(Notice),
}

/// The parameters of a group.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    pub(super) initial: Configuration,
    pub(super) settings: Settings,
    pub(super) bugs: Bugs,
    pub(super) seed: u64,
}

impl Setup {
    /// A group of `nodes` voters.
    pub(super) fn of(nodes: u16) -> Self {
        Setup {
            nodes,
            initial: Configuration::of_voters((1..=nodes).map(NodeId)),
            settings: Settings::default(),
            bugs: Bugs::none(),
            seed: 1,
        }
    }

    /// A group of which no server has started.
    pub(super) fn stopped(self) -> Cluster {
        let (nodes, seed) = ((1..=self.nodes).map(NodeId), self.seed);
        Cluster::new(Servers { setup: self }, nodes, Profile::MANUAL, seed, 10_000_000)
    }

    /// A group whose servers n1, n2, … have started.
    pub(super) fn started(self) -> Cluster {
        let mut cluster = self.stopped();
        cluster.start_all();
        cluster
    }
}

/// The protocol of a group.
pub(super) struct Servers {
    setup: Setup,
}

impl Protocol for Servers {
    type NodeId = NodeId;
    type Role = ();
    type Instance = RaftGroup<KvMachine>;
    type Event = Event;
    type Effect = Effect;
    type Message = Message;
    type Output = Output;
    type Store = Memory;

    const LINKS: bool = false;
    const SESSIONS: bool = false;

    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Self>> {
        let setup = &self.setup;
        let instance = RaftGroup::new(settings::Setup {
            me: node,
            group: GROUP,
            initial: setup.initial.clone(),
            settings: setup.settings,
            bugs: setup.bugs,
        });
        let seed = setup.seed * 100 + u64::from(node.0) + boot * 1_000_000;
        vec![Hosted {
            role: (),
            seed,
            instance,
        }]
    }

    fn handle(
        group: &mut RaftGroup<KvMachine>,
        clock: Clock,
        rng: &mut Rng,
        event: Event,
        effects: &mut Vec<Effect>,
    ) {
        let now = Now {
            instant: Instant(clock.instant),
            wall: WallTime(clock.wall),
        };
        group.handle(now, rng, event, effects);
    }

    fn action(&mut self, _: AddressOf<Self>, effect: Effect, _: &Process<Self>) -> Action<Self> {
        match effect {
            Effect::Send { to, message } => Action::Send {
                to: Address { node: to, role: () },
                message,
            },
            Effect::Persist { token, priority, ops } => Action::Persist {
                token,
                background: priority == Priority::Bulk,
                ops,
            },
            Effect::Read(query) => Action::Read { token: 0, query },
            Effect::SetTimer { id, at } => Action::SetTimer { id, at: at.0 },
            Effect::Proposed { id, result } => Action::Output(Output::Proposed {
                operation: id,
                result,
            }),
            Effect::Queried { id, result } => Action::Output(Output::Queried {
                operation: id,
                result,
            }),
            Effect::Notice(notice) => Action::Output(Output::Notice(notice)),
        }
    }

    fn event(input: Input<Self>) -> Event {
        match input {
            Input::Start => Event::Start,
            Input::Message { from, message } => Event::Message {
                from: from.node,
                message: encoded(&message),
            },
            Input::Timer { id } => Event::Timer { id },
            Input::Persisted { token } => Event::Persisted { tokens: vec![token] },
            Input::Refused { token } => Event::PersistRefused { token },
            Input::Read { answer, .. } => Event::Read { result: answer },
            Input::Peer { node, up } => Event::Peer { node, up },
            Input::Flushed { .. } | Input::File { .. } => unreachable!("a group requests neither"),
        }
    }
}

/// What tests do with a group.
pub(super) trait Group {
    /// The server that runs on a node.
    fn group(&self, node: NodeId) -> Option<&RaftGroup<KvMachine>>;
    /// Its protocol's state, once recovered.
    fn raft(&self, node: NodeId) -> Option<&Raft>;
    /// A client proposes. Returns the number of the operation.
    fn propose(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64;
    /// A client reads.
    fn query(&mut self, node: NodeId, query: &str, level: ReadLevel, timeout: Duration) -> u64;
    /// A server starts an election.
    fn campaign(&mut self, node: NodeId);
}

impl Group for Cluster {
    fn group(&self, node: NodeId) -> Option<&RaftGroup<KvMachine>> {
        self.instance(node, ())
    }

    fn raft(&self, node: NodeId) -> Option<&Raft> {
        self.group(node)?.raft()
    }

    fn propose(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64 {
        let id = self.next_operation();
        let proposal = Proposal {
            id,
            deadline: Instant(self.now) + timeout,
            request,
        };
        self.input(node, (), Event::Propose(vec![proposal]));
        id
    }

    fn query(&mut self, node: NodeId, query: &str, level: ReadLevel, timeout: Duration) -> u64 {
        let id = self.next_operation();
        let read_request = ReadRequest {
            id,
            deadline: Instant(self.now) + timeout,
            level,
            query: Bytes::copy_from_slice(query.as_bytes()),
        };
        self.input(node, (), Event::Query(read_request));
        id
    }

    fn campaign(&mut self, node: NodeId) {
        self.input(node, (), Event::Campaign);
    }
}

/// Commands are `put NAME VALUE` (returns the value) and `add NAME NUMBER` (returns the sum); a query is a
/// NAME. Text after `//` in a command only makes it distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct KvMachine {
    values: BTreeMap<String, String>,
    executed: BTreeMap<Bytes, u32>,
}

impl KvMachine {
    /// Commands that were executed more than once.
    pub(super) fn repeated(&self) -> impl Iterator<Item = &Bytes> {
        self.executed
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(command, _)| command)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter()
    }
}

impl StateMachine for KvMachine {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, _position: LogPosition, _time: WallTime, command: Bytes) -> Bytes {
        *self.executed.entry(command.clone()).or_default() += 1;
        let text = String::from_utf8_lossy(&command);
        let words: Vec<&str> = text
            .split("//")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let [verb, name, value] = words[..] else {
            return "?".into();
        };
        let old: i64 = self
            .values
            .get(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        let new = match verb {
            "add" => (old + value.parse::<i64>().unwrap_or(0)).to_string(),
            _ => value.to_owned(),
        };
        self.values.insert(name.to_owned(), new.clone());
        new.into()
    }
}

impl Machine for KvMachine {
    fn query(&self, query: &Bytes) -> Bytes {
        let value = self.values.get(&*String::from_utf8_lossy(query));
        value.cloned().unwrap_or_else(|| "-".to_owned()).into()
    }

    fn save(&self) -> Bytes {
        format::encode(self)
    }

    fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        format::decode("ledger", bytes)
    }
}

/// A node's server.
pub(super) struct Observed<'a>(pub(super) NodeId, pub(super) &'a Raft);

impl Server for Observed<'_> {
    type Node = NodeId;
    type Entry = Entry;

    fn node(&self) -> NodeId {
        self.0
    }

    fn term(&self) -> u64 {
        self.1.term().0
    }

    fn leads(&self) -> bool {
        self.1.is_leader()
    }

    fn base(&self) -> u64 {
        self.1.log().base().index.0
    }

    fn last(&self) -> u64 {
        self.1.log().last().index.0
    }

    fn commit(&self) -> u64 {
        self.1.log().commit().0
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        self.1.log().entry(LogIndex(index))
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        self.1.log().term_at(LogIndex(index)).map(|term| term.0)
    }
}
