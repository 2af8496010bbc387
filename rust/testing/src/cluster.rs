//! The cluster: nodes, a network, a clock, and what a test does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_core::Rng as _;

use crate::disk::Crash;
use crate::node::{Node, Process};
use crate::protocol::{Clock, EnvelopeOf, Input, Protocol, Rng, rng_from_seed};
use crate::recording::Recording;
use crate::trace::TraceEvent;

mod disks;
mod driving;
mod network;
mod time;

use time::Due;

/// The wall clocks' time at the beginning.
pub const EPOCH: u64 = 1_700_000_000_000_000;

/// How long things take, and how often messages go astray. Times are microseconds, from and to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How long a message takes. `None`: it waits on the wire until it is delivered by hand.
    pub latency: Option<(u64, u64)>,
    /// Of a thousand messages so many are lost.
    pub lost: u64,
    /// Of a thousand messages so many come twice.
    pub repeated: u64,
    /// How long persists, reads and steps with files take. `None` is at once.
    pub disk: Option<(u64, u64)>,
    /// How long until derived rows survive a crash. `None` is at once.
    pub flushing: Option<(u64, u64)>,
}

impl Profile {
    /// Messages are delivered by hand, and disks answer at once.
    pub const MANUAL: Profile = Profile {
        latency: None,
        lost: 0,
        repeated: 0,
        disk: None,
        flushing: None,
    };

    /// Every message takes half a millisecond, and disks answer at once.
    pub const STEADY: Profile = Profile {
        latency: Some((500, 500)),
        ..Profile::MANUAL
    };
}

/// What is to happen, on which node, in which of its lives (in any, for most messages): by time, and in the order of planning.
type Queue<P> = BTreeMap<(u64, u64), (<P as Protocol>::NodeId, Option<u64>, Due<P>)>;

/// A cluster of a protocol's nodes.
pub struct Cluster<P: Protocol> {
    /// What the test keeps beside it.
    pub protocol: P,
    /// The time, in microseconds.
    pub now: u64,
    /// The nodes.
    pub nodes: BTreeMap<P::NodeId, Node<P>>,
    /// Messages that wait to be delivered by hand, in the order in which they were sent.
    pub wire: Vec<EnvelopeOf<P>>,
    /// Pairs of nodes whose messages stay on the wire.
    pub blocked: BTreeSet<(P::NodeId, P::NodeId)>,
    /// Pairs of nodes whose messages are lost.
    pub cut: BTreeSet<(P::NodeId, P::NodeId)>,
    /// What goes over connections comes again after this time.
    pub repeat: Option<Duration>,
    /// What has happened since a test took it.
    pub trace: Vec<TraceEvent<P>>,
    /// How long things take.
    pub profile: Profile,
    /// How many operations clients have begun.
    pub operations: u64,
    /// Whether instances that start are recorded.
    pub record: bool,
    scrambler: Option<Rng>,
    rng: Rng,
    queue: Queue<P>,
    planned: u64,
}

impl<P: Protocol> Cluster<P> {
    /// A cluster of which no node runs, at this time.
    pub fn new(
        protocol: P,
        nodes: impl IntoIterator<Item = P::NodeId>,
        profile: Profile,
        seed: u64,
        now: u64,
    ) -> Self {
        Cluster {
            protocol,
            now,
            nodes: nodes.into_iter().map(|node| (node, Node::new())).collect(),
            wire: Vec::new(),
            blocked: BTreeSet::new(),
            cut: BTreeSet::new(),
            repeat: None,
            trace: Vec::new(),
            profile,
            operations: 0,
            record: false,
            scrambler: None,
            rng: rng_from_seed(seed),
            queue: BTreeMap::new(),
            planned: 0,
        }
    }

    /// From now on what goes on inside a node happens in any order that a shell is free to choose.
    pub fn scramble(&mut self, seed: u64) {
        self.scrambler = Some(rng_from_seed(seed));
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<P::NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A node.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn node(&mut self, node: P::NodeId) -> &mut Node<P> {
        self.nodes.get_mut(&node).expect("a node of the cluster")
    }

    /// Whether a node's process runs.
    pub fn is_up(&self, node: P::NodeId) -> bool {
        self.nodes[&node].is_up()
    }

    /// An instance that runs.
    pub fn instance(&self, node: P::NodeId, role: P::Role) -> Option<&P::Instance> {
        self.nodes[&node].instance(role)
    }

    /// Both clocks of a node.
    pub fn clock(&self, node: P::NodeId) -> Clock {
        Clock {
            instant: self.now,
            wall: (EPOCH + self.now).saturating_add_signed(self.nodes[&node].skew_micros),
        }
    }

    // ---- processes ----

    /// A node starts, with what its disk has, and with links to all that run and are not cut off.
    ///
    /// # Panics
    /// If it runs.
    pub fn start(&mut self, node: P::NodeId) {
        assert!(!self.is_up(node), "{node} runs already");
        let record = self.record;
        let found = self.node(node);
        found.boots += 1;
        (found.syncs_at, found.filing) = (0, BTreeSet::new());
        let boot = found.boots;
        found.process = Some(Process::new(node, boot));
        let hosted = self.protocol.start(node, boot);
        let process = self.node(node).process.as_mut().expect("it runs");
        let roles: Vec<P::Role> = hosted.iter().map(|hosted| hosted.role).collect();
        for hosted in hosted {
            process.host(hosted, record);
        }
        for role in roles {
            process.mail(role, P::event(Input::Start), true, None);
        }
        self.settle(node);
        for (role, event) in self.protocol.started(node) {
            self.input(node, role, event);
        }
        for other in self.others(node) {
            let apart = self.cut.contains(&(node, other)) || self.cut.contains(&(other, node));
            if P::LINKS && !apart {
                self.link(node, other, true);
                self.link(other, node, true);
            }
        }
    }

    /// Every node starts, one after the other.
    pub fn start_all(&mut self) {
        for node in self.names() {
            self.start(node);
        }
    }

    /// A process ends at once. Nobody hears of what its disk has done of the things it was asked for.
    pub fn crash(&mut self, node: P::NodeId, crash: Crash) {
        let found = self.node(node);
        found.end();
        for ops in found.disk.crash(crash) {
            let refused = false;
            self.trace.push(TraceEvent::Disk { node, ops, refused });
        }
        if P::SESSIONS {
            self.wire.retain(|envelope| envelope.to.node != node);
            self.queue
                .retain(|_, (to, _, due)| *to != node || !matches!(due, Due::Arrive(_)));
        }
        if !P::LINKS {
            return;
        }
        for other in self.others(node) {
            match self.profile.disk {
                None => self.link(other, node, false),
                Some(_) => {
                    let after = self.draw((0, 100_000));
                    let boot = Some(self.nodes[&other].boots);
                    self.plan(after, other, boot, Due::Link(node, false));
                }
            }
        }
    }

    /// The mistake of a supervisor: the process is replaced, while its disk goes on with what it was asked for.
    pub fn restart_in_place(&mut self, node: P::NodeId) {
        self.node(node).end();
        self.start(node);
    }

    /// The other nodes that run.
    fn others(&self, node: P::NodeId) -> Vec<P::NodeId> {
        let running = self.nodes.iter().filter(|(_, found)| found.is_up());
        running
            .map(|(other, _)| *other)
            .filter(|other| *other != node)
            .collect()
    }

    /// The cluster ends: what was recorded of every instance.
    pub fn into_recordings(self) -> Vec<Recording<P>> {
        self.nodes
            .into_values()
            .flat_map(|mut node| {
                node.end();
                node.recordings
            })
            .collect()
    }

    // ---- chance ----

    pub(crate) fn draw(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_micros(from + self.rng.next_u64() % (to - from + 1))
    }

    pub(crate) fn chance(&mut self, of_a_thousand: u64) -> bool {
        of_a_thousand > 0 && self.rng.next_u64() % 1000 < of_a_thousand
    }

    // ---- clients ----

    /// The number of the next operation of a client.
    pub fn next_operation(&mut self) -> u64 {
        self.operations += 1;
        self.operations
    }

    /// Gives a role an event, and lets the node work until nothing is left in its mailboxes. Nothing happens on a node that does
    /// not run.
    pub fn input(&mut self, node: P::NodeId, role: P::Role, event: P::Event) {
        if self.is_up(node) {
            self.post(node, role, event, false);
            self.settle(node);
        }
    }
}
