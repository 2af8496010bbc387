//! A group in memory: what its tests bring along for a [`Cluster`](quorate_testing::Cluster) of servers.

use std::time::Duration;

use bytes::Bytes;
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
use crate::event::{Effect, Event, Proposal, ProposeError, QueryError, Question, ReadAnswer, ReadLevel};
use crate::message::Message;
use crate::sessions::{Answer, Request};
use crate::settings::{self, Settings};
use crate::types::{GroupId, LogPosition};
use crate::{Raft, RaftGroup};

mod ledger;
mod seen;
pub(super) mod show;

pub(super) use ledger::Ledger;
pub(super) use seen::Seen;

/// The group that all tests use.
pub(super) const GROUP: GroupId = GroupId(1);

/// The servers of a group.
pub(super) type Cluster = quorate_testing::Cluster<Servers>;
/// A message on its way.
pub(super) type Envelope = quorate_testing::Envelope<NodeId, (), Message>;
/// What has happened.
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

/// What a proposer was told.
pub(super) type Proposed = Result<(LogPosition, Answer), ProposeError>;
/// What a reader was told.
pub(super) type Queried = Result<ReadAnswer, QueryError>;

/// What a test may want to see of a server.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Proposed { operation: u64, result: Proposed },
    Queried { operation: u64, result: Queried },
    Notice(Notice),
}

/// How to set a group up.
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
    type Instance = RaftGroup<Ledger>;
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
        group: &mut RaftGroup<Ledger>,
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
            Input::Flushed { .. } | Input::File { .. } => unreachable!("a group asks for neither"),
        }
    }
}

/// What tests do with a group.
pub(super) trait Group {
    /// The server that runs on a node.
    fn group(&self, node: NodeId) -> Option<&RaftGroup<Ledger>>;
    /// Its protocol's state, once it has been recovered.
    fn raft(&self, node: NodeId) -> Option<&Raft>;
    /// A client proposes. Gives the number that the answer will carry.
    fn propose(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64;
    /// A client reads.
    fn query(&mut self, node: NodeId, query: &str, level: ReadLevel, timeout: Duration) -> u64;
    /// A server asks for an election.
    fn campaign(&mut self, node: NodeId);
}

impl Group for Cluster {
    fn group(&self, node: NodeId) -> Option<&RaftGroup<Ledger>> {
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
        let question = Question {
            id,
            deadline: Instant(self.now) + timeout,
            level,
            query: Bytes::copy_from_slice(query.as_bytes()),
        };
        self.input(node, (), Event::Query(question));
        id
    }

    fn campaign(&mut self, node: NodeId) {
        self.input(node, (), Event::Campaign);
    }
}
