//! A group in a test tube: real servers on every node, and a test in place of network, disks and clocks.
//!
//! Nothing moves by itself. A message waits on [`Lab::wire`] until it is delivered, dropped or repeated; time
//! stands still until [`Lab::advance`]. Disks answer at once unless they are held. Every message goes through
//! its encoded form. Whatever a person would want to see is kept as a [`Happening`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::ids::NodeId;
use crate::raft::RaftGroup;
use crate::raft::alphabet::{
    Effect, Event, Proposal, ProposeError, QueryError, Question, ReadAnswer, ReadLevel,
};
use crate::raft::bugs::RaftBugs;
use crate::raft::configuration::Configuration;
use crate::raft::message::Message;
use crate::raft::output::Notice;
use crate::raft::sessions::{Answer, Request};
use crate::raft::settings::{self, Settings};
use crate::raft::types::{GroupId, LogPosition};
use crate::store::JournalOp;
use crate::time::{Instant, Now, WallTime};

mod disk;
mod ledger;
mod machine;
pub(super) mod show;

pub(super) use disk::Disk;
pub(super) use ledger::Ledger;
pub(super) use machine::Machine;

/// The wall clocks' time at the beginning.
const EPOCH: u64 = 1_700_000_000_000_000;
/// The group that all tests use.
pub(super) const GROUP: GroupId = GroupId(1);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

impl Envelope {
    pub(super) fn pair(&self) -> (NodeId, NodeId) {
        (self.from, self.to)
    }
}

/// What a proposer was told.
pub(super) type Proposed = Result<(LogPosition, Answer), ProposeError>;
/// What a reader was told.
pub(super) type Queried = Result<ReadAnswer, QueryError>;

/// Something that a test may want to see.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A message reached a server.
    Delivered(Envelope),
    /// A message reached nobody: why.
    Lost(Envelope, &'static str),
    /// A disk made this durable, or refused to.
    Disk {
        node: NodeId,
        ops: Vec<JournalOp>,
        refused: bool,
    },
    Proposed {
        operation: u64,
        result: Proposed,
    },
    Queried {
        operation: u64,
        result: Queried,
    },
    Noticed {
        node: NodeId,
        notice: Notice,
    },
}

/// How to set a group up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    pub(super) initial: Configuration,
    pub(super) settings: Settings,
    pub(super) bugs: RaftBugs,
    pub(super) seed: u64,
}

impl Setup {
    /// A group of `nodes` voters.
    pub(super) fn of(nodes: u16) -> Self {
        Setup {
            nodes,
            initial: Configuration::of_voters((1..=nodes).map(NodeId)),
            settings: Settings::default(),
            bugs: RaftBugs::default(),
            seed: 1,
        }
    }
}

/// The group.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    /// Messages in the order in which they were sent.
    pub(super) wire: Vec<Envelope>,
    /// Pairs of nodes whose messages stay on the wire.
    pub(super) blocked: BTreeSet<(NodeId, NodeId)>,
    /// Pairs of nodes whose messages are lost.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) happenings: Vec<Happening>,
    pub(super) operations: u64,
}

impl Lab {
    /// A group of which no server has started.
    pub(super) fn stopped(setup: &Setup) -> Self {
        let machine = |number| {
            let node = NodeId(number);
            let own = settings::Setup {
                me: node,
                group: GROUP,
                initial: setup.initial.clone(),
                settings: setup.settings,
                bugs: setup.bugs,
            };
            (node, Machine::new(own, setup.seed * 100 + u64::from(number)))
        };
        Lab {
            now: Instant(10_000_000),
            machines: (1..=setup.nodes).map(machine).collect(),
            wire: Vec::new(),
            blocked: BTreeSet::new(),
            cut: BTreeSet::new(),
            happenings: Vec::new(),
            operations: 0,
        }
    }

    /// A group whose servers n1, n2, … have started.
    pub(super) fn new(setup: &Setup) -> Self {
        let mut lab = Lab::stopped(setup);
        for node in lab.nodes() {
            lab.restart(node);
        }
        lab
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("a node of the group")
    }

    /// The server that runs on a node.
    pub(super) fn group(&self, node: NodeId) -> Option<&RaftGroup<Ledger>> {
        self.machines[&node].group.as_ref()
    }

    // ---- clients ----

    /// A client proposes. Gives the number that the answer will carry.
    pub(super) fn propose(&mut self, node: NodeId, request: Request, timeout: Duration) -> u64 {
        self.operations += 1;
        let proposal = Proposal {
            id: self.operations,
            deadline: self.now + timeout,
            request,
        };
        self.input(node, Event::Propose(vec![proposal]));
        self.operations
    }

    /// A client reads.
    pub(super) fn query(&mut self, node: NodeId, query: &str, level: ReadLevel, timeout: Duration) -> u64 {
        self.operations += 1;
        let query = Question {
            id: self.operations,
            deadline: self.now + timeout,
            level,
            query: Bytes::copy_from_slice(query.as_bytes()),
        };
        self.input(node, Event::Query(query));
        self.operations
    }

    // ---- network ----

    /// Delivers the message at this place of the wire.
    pub(super) fn deliver(&mut self, place: usize) {
        let envelope = self.wire.remove(place);
        if self.cut.contains(&envelope.pair()) {
            self.happenings.push(Happening::Lost(envelope, "the network"));
        } else if self.group(envelope.to).is_none() {
            self.happenings.push(Happening::Lost(envelope, "nobody there"));
        } else {
            self.happenings.push(Happening::Delivered(envelope.clone()));
            let bytes = postcard::to_stdvec(&envelope.message).expect("messages can be encoded");
            let message = postcard::from_bytes(&bytes).expect("and decoded");
            let from = envelope.from;
            self.input(envelope.to, Event::Message { from, message });
        }
    }

    /// The places on the wire of the messages between two nodes, or between all, that may pass.
    pub(super) fn places(&self, between: Option<(NodeId, NodeId)>) -> Vec<usize> {
        let wanted = |envelope: &Envelope| {
            between.is_none_or(|pair| pair == envelope.pair()) && !self.blocked.contains(&envelope.pair())
        };
        (0..self.wire.len())
            .filter(|place| wanted(&self.wire[*place]))
            .collect()
    }

    /// Delivers what is on the wire now and may pass.
    pub(super) fn deliver_round(&mut self, between: Option<(NodeId, NodeId)>, at_most: usize) -> usize {
        let mut places = self.places(between);
        places.truncate(at_most);
        // Later messages join at the end, so the places of the others only move down by those taken before
        // them.
        for (taken, place) in places.iter().enumerate() {
            self.deliver(place - taken);
        }
        places.len()
    }

    /// Delivers until nothing is left that may pass.
    pub(super) fn run(&mut self) {
        while self.deliver_round(None, usize::MAX) > 0 {}
    }

    /// The link from one node to another comes up or breaks, as the first one sees it.
    pub(super) fn link(&mut self, from: NodeId, to: NodeId, up: bool) {
        self.input(from, Event::Peer { node: to, up });
    }

    // ---- processes ----

    /// A process ends at once. Of its persists in flight the first `synced` have reached the disk; nobody
    /// hears of it.
    pub(super) fn crash(&mut self, node: NodeId, synced: usize) {
        self.machine(node).crash(synced);
    }

    /// The process starts (again) with what its disk has.
    pub(super) fn restart(&mut self, node: NodeId) {
        self.machine(node).boot();
        self.input(node, Event::Start);
    }

    /// The mistake of [`RaftBugs::restarted_in_place`].
    pub(super) fn restart_in_place(&mut self, node: NodeId) {
        self.machine(node).fail();
        self.restart(node);
    }

    // ---- disks ----

    /// The first `count` persists in flight become durable, or are refused by a full disk.
    pub(super) fn persist(&mut self, node: NodeId, count: usize) {
        for _ in 0..count {
            let Some((ops, refused)) = self.machine(node).flush_one() else {
                return;
            };
            self.happenings.push(Happening::Disk { node, ops, refused });
            self.settle();
        }
    }

    // ---- time ----

    /// Lets time pass; timers go off in their order.
    pub(super) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some((at, node, id)) = self
            .machines
            .values()
            .filter_map(|machine| machine.next_timer().map(|(at, id)| (at, machine.node(), id)))
            .min()
            && at <= until
        {
            self.now = self.now.max(at);
            self.machine(node).timers.remove(&id);
            self.input(node, Event::Timer { id });
        }
        self.now = until;
    }

    /// Lets time pass while every message arrives within half a millisecond.
    pub(super) fn live(&mut self, by: Duration) {
        let until = self.now + by;
        while self.now < until {
            self.advance(Duration::from_micros(500));
            self.deliver_round(None, usize::MAX);
        }
    }

    fn now_of(&self, node: NodeId) -> Now {
        let wall = (EPOCH + self.now.0).saturating_add_signed(self.machines[&node].skew_micros);
        Now {
            instant: self.now,
            wall: WallTime(wall),
        }
    }

    // ---- driving the servers ----

    pub(super) fn input(&mut self, node: NodeId, event: Event) {
        if self.machines[&node].group.is_some() {
            self.machine(node).mailbox.push_back(event);
            self.settle();
        }
    }

    fn settle(&mut self) {
        for node in self.nodes() {
            loop {
                let now = self.now_of(node);
                let Some(effects) = self.machine(node).handle_next(now) else {
                    break;
                };
                for effect in effects {
                    self.perform(node, effect);
                }
            }
        }
    }

    fn perform(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.wire.push(Envelope {
                from: node,
                to,
                message,
            }),
            Effect::Persist { token, priority, ops } => {
                let machine = self.machine(node);
                machine.submit(token, priority, ops);
                if !machine.disk.held {
                    while let Some((ops, refused)) = self.machine(node).flush_one() {
                        self.happenings.push(Happening::Disk { node, ops, refused });
                    }
                }
            }
            Effect::Read(query) => {
                let machine = self.machine(node);
                let result = Ok(machine.disk.read(&query));
                machine.mailbox.push_back(Event::Read { result });
            }
            Effect::SetTimer { id, at } => drop(self.machine(node).timers.insert(id, at)),
            Effect::Proposed { id, result } => self.happenings.push(Happening::Proposed {
                operation: id,
                result,
            }),
            Effect::Queried { id, result } => self.happenings.push(Happening::Queried {
                operation: id,
                result,
            }),
            Effect::Notice(notice) => self.happenings.push(Happening::Noticed { node, notice }),
        }
    }
}
