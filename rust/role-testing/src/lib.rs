//! Roles of nodes in a [`Cluster`], for the tests of those roles.
//!
//! A test defines with a [`Scene`] which roles it hosts, and how nodes start them. The node role is always
//! available; the others are of the crate under test. [`Observed`] is a server of a Raft group for the properties
//! of Figure 3.

use std::fmt::Debug;
use std::time::Duration;

use quorate_checker::figure3::Server;
use quorate_core::bugs::Bugs;
use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::ids::{ClusterId, NodeId, ReplicaId};
use quorate_core::store::Priority;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::node::NodeRole;
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Address, ClientRef, Effect, Event, RoleId, Spec, Surroundings};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::Raft;
use quorate_raft::entry::Entry;
use quorate_raft::settings::Timing;
use quorate_raft::types::LogIndex;
use quorate_ring::RingSettings;
use quorate_testing::memory::Memory;
use quorate_testing::node::Process;
use quorate_testing::protocol::AddressOf;
use quorate_testing::{Action, Clock, Cluster, Hosted, Input, Protocol, encoded};

/// The roles that a test hosts, and how nodes start them.
pub trait Scene: Sized {
    /// The roles of the crate under test.
    type Role: Role<Event = Event, Effect = Effect> + PartialEq + Debug;

    /// Whether a crash of a node drops the messages in flight to it, as with the real link. Without, more can
    /// happen.
    const SESSIONS: bool = true;

    /// The initial instances of a node.
    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Roles<Self>>>;

    /// The events after their start.
    fn started(&mut self, _node: NodeId) -> Vec<(RoleId, Event)> {
        Vec::new()
    }

    /// The node role requires these. Existing ones are not hosted again.
    fn reconcile(
        &mut self,
        _node: NodeId,
        _specs: Vec<Spec>,
        _process: &Process<Roles<Self>>,
    ) -> Vec<Hosted<Roles<Self>>> {
        unreachable!("only node roles do that")
    }

    /// Whether roles of this kind are hosted. Messages to others are dropped.
    fn hosts(_role: RoleId) -> bool {
        true
    }
}

/// A role instance on a node of a scene.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instance<R> {
    /// Decides which others exist.
    Node(NodeRole),
    /// A role of the crate under test.
    Role(R),
}

/// The protocol of a scene.
pub struct Roles<S>(pub S);

/// A message with its header.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its header.
    pub header: Header,
    /// Its content.
    pub content: Content,
}

/// The content of a message.
#[derive(Clone, Debug)]
pub enum Content {
    /// To any role.
    Message(Message),
    /// To a role of the same node.
    Local(LocalMessage),
}

impl Content {
    /// The message, if it may go to another node.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Content::Message(message) => Some(message),
            Content::Local(_) => None,
        }
    }
}

/// A message in flight.
pub type Envelope = quorate_testing::Envelope<NodeId, RoleId, Sent>;

/// What a test may observe of a role.
#[derive(Clone, Debug)]
pub enum Output {
    /// A request was answered.
    Reply(u64, Result<Response, Error>),
    /// A request was passed to a role that is not hosted.
    Relayed(RoleId, u64),
    /// An event for the timeline.
    Emitted(TimelineEvent),
}

impl<S: Scene> Protocol for Roles<S> {
    type NodeId = NodeId;
    type Role = RoleId;
    type Instance = Instance<S::Role>;
    type Event = Event;
    type Effect = Effect;
    type Message = Sent;
    type Output = Output;
    type Store = Memory;

    const LINKS: bool = true;
    const SESSIONS: bool = S::SESSIONS;

    fn start(&mut self, node: NodeId, boot: u64) -> Vec<Hosted<Self>> {
        self.0.start(node, boot)
    }

    fn started(&mut self, node: NodeId) -> Vec<(RoleId, Event)> {
        self.0.started(node)
    }

    fn handle(
        instance: &mut Self::Instance,
        clock: Clock,
        rng: &mut Rng,
        event: Event,
        effects: &mut Vec<Effect>,
    ) {
        match instance {
            Instance::Node(role) => role.handle(now(clock), rng, event, effects),
            Instance::Role(role) => role.handle(now(clock), rng, event, effects),
        }
    }

    fn action(&mut self, from: AddressOf<Self>, effect: Effect, process: &Process<Self>) -> Action<Self> {
        match effect {
            Effect::Send { to, .. } if !S::hosts(to.role) => Action::Nothing,
            Effect::Send { to, header, message } => Action::Send {
                to: quorate_testing::Address {
                    node: to.node,
                    role: to.role,
                },
                message: Sent {
                    header,
                    content: Content::Message(message),
                },
            },
            Effect::SendLocal { to, .. } if !S::hosts(to) => Action::Nothing,
            Effect::SendLocal { to, header, message } => Action::Send {
                to: quorate_testing::Address {
                    node: from.node,
                    role: to,
                },
                message: Sent {
                    header,
                    content: Content::Local(message),
                },
            },
            Effect::EndTurn => Action::Post {
                role: from.role,
                event: Event::TurnEnded,
            },
            Effect::Reply { client, response } => Action::Output(Output::Reply(client.request, response)),
            Effect::Relay { to, client, .. } if !S::hosts(to) => {
                Action::Output(Output::Relayed(to, client.request))
            }
            Effect::Relay {
                to,
                client,
                header,
                request,
            } => Action::Post {
                role: to,
                event: Event::Request {
                    client,
                    header,
                    request,
                },
            },
            Effect::Emit(event) => Action::Output(Output::Emitted(event)),
            Effect::Persist { token, priority, ops } => Action::Persist {
                token,
                background: priority == Priority::Bulk,
                ops,
            },
            Effect::ApplyRows { token, writes } => Action::ApplyRows { token, rows: writes },
            Effect::Read { token, query } => Action::Read { token, query },
            Effect::Files { token, task } => Action::File {
                token,
                owner: task.owner(),
                task: task.into(),
            },
            Effect::SetTimer { id, at } => Action::SetTimer { id, at: at.0 },
            Effect::Reconcile(specs) => Action::Host(self.0.reconcile(from.node, specs, process)),
            Effect::Group(_) | Effect::Span(_) | Effect::Measure(_) => Action::Nothing,
        }
    }

    fn event(input: Input<Self>) -> Event {
        match input {
            Input::Start => Event::Start,
            Input::Message { from, message } => match message.content {
                Content::Message(content) => Event::Message {
                    from: Address {
                        node: from.node,
                        role: from.role,
                    },
                    header: message.header,
                    message: encoded(&content),
                },
                Content::Local(content) => Event::Local {
                    from: from.role,
                    header: message.header,
                    message: content,
                },
            },
            Input::Timer { id } => Event::Timer { id },
            Input::Persisted { token } => Event::Persisted { tokens: vec![token] },
            Input::Refused { token } => Event::PersistRefused { token },
            Input::Flushed { token } => Event::Flushed { tokens: vec![token] },
            Input::Read { token, answer } => Event::Read {
                token,
                result: answer,
            },
            Input::File { token, done } => Event::Files { token, result: done },
            Input::Peer { node, up } => Event::Peer { node, up },
        }
    }

    fn is_expired(sent: &Sent, now: u64) -> bool {
        sent.header.deadline <= Instant(now)
    }

    fn has_connection(sent: &Sent) -> bool {
        !matches!(sent.content, Content::Message(Message::Raft { .. }))
    }
}

/// Both clocks, in the types of roles.
pub fn now(clock: Clock) -> Now {
    Now {
        instant: Instant(clock.instant),
        wall: WallTime(clock.wall),
    }
}

/// A client's request, as from a listener, with this number.
pub fn client_request(number: u64, request: Request, deadline: Instant) -> Event {
    let header = Header {
        generation: 0,
        request: number,
        deadline,
        trace: None,
    };
    let client = ClientRef {
        connection: 1,
        request: number,
    };
    Event::Request {
        client,
        header,
        request,
    }
}

/// What clients do.
pub trait Clients {
    /// A client sends a request to a role of a node. Returns the number of the operation.
    fn send_request(&mut self, node: NodeId, role: RoleId, request: Request, timeout: Duration) -> u64;
}

impl<S: Scene> Clients for Cluster<Roles<S>> {
    fn send_request(&mut self, node: NodeId, role: RoleId, request: Request, timeout: Duration) -> u64 {
        let number = self.next_operation();
        let deadline = Instant(self.now) + timeout;
        self.input(node, role, client_request(number, request, deadline));
        number
    }
}

/// A topology with these members, with `port` added to their addresses.
pub fn topology(
    nodes: impl IntoIterator<Item = NodeId>,
    vnodes: u16,
    port: impl Fn(NodeId) -> u16,
) -> Topology {
    let member = |node: NodeId| {
        let at = |offset: u16| format!("{node}:{}", offset + port(node));
        Member {
            id: node,
            peer_address: at(100),
            client_address: at(200),
            http_address: at(300),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        }
    };
    let ring = RingSettings {
        vnodes,
        ..RingSettings::default()
    };
    let members = nodes.into_iter().map(member).collect();
    Topology::new(ClusterId(7), 1, members, ring).expect("distinct members")
}

/// The parameters of a node's roles, without known live peers.
pub fn surroundings(node: NodeId, placement: Placement, raft: Timing, bugs: Bugs) -> Surroundings {
    Surroundings {
        replica: ReplicaId::new(node, 0xd1),
        placement,
        alive: [node].into(),
        raft,
        bugs,
    }
}

/// A node's server of a Raft group, as the Figure 3 checker sees it.
pub struct Observed<'a>(pub NodeId, pub &'a Raft);

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
