//! The cluster: nodes, a network, a clock, and their control by a test.

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

/// The initial time of the wall clocks.
pub const EPOCH: u64 = 1_700_000_000_000_000;

/// Latencies and message faults. Times are ranges in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The latency of a message. `None`: it stays on the wire until it is delivered manually.
    pub latency: Option<(u64, u64)>,
    /// The number of dropped messages per thousand.
    pub lost: u64,
    /// The number of duplicated messages per thousand.
    pub repeated: u64,
    /// The latency of persists, reads and steps of file tasks. `None` is immediate.
    pub disk: Option<(u64, u64)>,
    /// The delay until derived rows are flushed. `None` is immediate.
    pub flushing: Option<(u64, u64)>,
}

impl Profile {
    /// Messages are delivered manually, and disks answer immediately.
    pub const MANUAL: Profile = Profile {
        latency: None,
        lost: 0,
        repeated: 0,
        disk: None,
        flushing: None,
    };

    /// Every message takes half a millisecond, and disks answer immediately.
    pub const STEADY: Profile = Profile {
        latency: Some((500, 500)),
        ..Profile::MANUAL
    };
}

/// Future events, with their node and boot (any boot for most messages), by time and insertion.
type Queue<P> = BTreeMap<(u64, u64), (<P as Protocol>::NodeId, Option<u64>, Due<P>)>;

/// A cluster of a protocol's nodes.
pub struct Cluster<P: Protocol> {
    /// The protocol, with the state of the test.
    pub protocol: P,
    /// The time, in microseconds.
    pub now: u64,
    /// The nodes.
    pub nodes: BTreeMap<P::NodeId, Node<P>>,
    /// Messages to be delivered manually, in the order in which they were sent.
    pub wire: Vec<EnvelopeOf<P>>,
    /// Pairs of nodes whose messages stay on the wire.
    pub blocked: BTreeSet<(P::NodeId, P::NodeId)>,
    /// Pairs of nodes whose messages are dropped.
    pub cut: BTreeSet<(P::NodeId, P::NodeId)>,
    /// Messages over connections are duplicated after this time.
    pub repeat: Option<Duration>,
    /// The trace since the test last took it.
    pub trace: Vec<TraceEvent<P>>,
    /// Latencies and message faults.
    pub profile: Profile,
    /// The number of operations of clients.
    pub operations: u64,
    /// Whether instances that start are recorded.
    pub record: bool,
    scrambler: Option<Rng>,
    rng: Rng,
    queue: Queue<P>,
    planned: u64,
}

impl<P: Protocol> Cluster<P> {
    /// Creates a cluster whose nodes are not running, at this time.
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

    /// Randomizes the order of events within nodes, as far as a shell may choose it.
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
    /// If it does not exist.
    pub fn node(&mut self, node: P::NodeId) -> &mut Node<P> {
        self.nodes.get_mut(&node).expect("a node of the cluster")
    }

    /// Whether a node is running.
    pub fn is_up(&self, node: P::NodeId) -> bool {
        self.nodes[&node].is_up()
    }

    /// A running instance.
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

    /// Starts a node from its disk, with links to all running nodes that are not partitioned from it.
    ///
    /// # Panics
    /// If it is running.
    pub fn start(&mut self, node: P::NodeId) {
        assert!(!self.is_up(node), "{node} is running already");
        let record = self.record;
        let found = self.node(node);
        found.boots += 1;
        (found.syncs_at, found.filing) = (0, BTreeSet::new());
        let boot = found.boots;
        found.process = Some(Process::new(node, boot));
        let hosted = self.protocol.start(node, boot);
        let process = self.node(node).process.as_mut().expect("it is running");
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

    /// Starts all nodes, one after the other.
    pub fn start_all(&mut self) {
        for node in self.names() {
            self.start(node);
        }
    }

    /// A process crashes. The completions of its pending writes are dropped.
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

    /// A deliberate bug of a supervisor: the process is replaced, while its disk continues with its pending writes.
    pub fn restart_in_place(&mut self, node: P::NodeId) {
        self.node(node).end();
        self.start(node);
    }

    /// The other running nodes.
    fn others(&self, node: P::NodeId) -> Vec<P::NodeId> {
        let running = self.nodes.iter().filter(|(_, found)| found.is_up());
        running
            .map(|(other, _)| *other)
            .filter(|other| *other != node)
            .collect()
    }

    /// Ends the cluster and returns the recordings of all instances.
    pub fn into_recordings(self) -> Vec<Recording<P>> {
        self.nodes
            .into_values()
            .flat_map(|mut node| {
                node.end();
                node.recordings
            })
            .collect()
    }

    // ---- random numbers ----

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

    /// Passes an event to a role, and runs the node until its mailboxes are empty. Does nothing if the node is not running.
    pub fn input(&mut self, node: P::NodeId, role: P::Role, event: P::Event) {
        if self.is_up(node) {
            self.post(node, role, event, false);
            self.settle(node);
        }
    }
}
