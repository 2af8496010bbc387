//! A cluster in a test tube: real roles on every node, and a test in place of network, disks and clocks.
//!
//! Nothing moves by itself. A message to another node waits on [`Lab::wire`] until it is delivered, dropped or
//! repeated; time stands still until [`Lab::advance`]. Disks answer at once unless they are held. What goes on inside
//! a node (mailbox to mailbox, reads of the store) happens immediately, as the driving contract allows.
//!
//! Whatever a person would want to see is kept as a [`Happening`]. Every input of every role is recorded, so that a
//! test can replay a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::{Request, Response};
use crate::bugs::Bugs;
use crate::error::Error;
use crate::ids::{ClusterId, KeyspaceId, NodeId};
use crate::key::{Key, record_key};
use crate::keyspace::{Keyspace, KeyspaceSettings};
use crate::message::{Header, Message};
use crate::placement::Placement;
use crate::ring::{HashKind, RingSettings};
use crate::role::{Address, ClientRef, Effect, Event, RoleId};
use crate::store::{StateWrite, Table};
use crate::telemetry::TimelineEvent;
use crate::time::{Instant, Now, WallTime};
use crate::topology::{Member, Topology};
use crate::versions::KeyState;

mod disk;
mod machine;
mod recording;
pub(super) mod show;

pub(super) use machine::Machine;
pub(super) use recording::Recording;

/// The wall clocks' time at the beginning.
const EPOCH: u64 = 1_700_000_000_000_000;

/// A message on its way between two nodes.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) header: Header,
    pub(super) message: Message,
}

impl Envelope {
    /// From which node to which.
    fn pair(&self) -> (NodeId, NodeId) {
        (self.from.node, self.to.node)
    }
}

/// Something that a test may want to see.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A message from another node reached a role.
    Delivered(Envelope),
    /// A message reached nobody: why.
    Lost(Envelope, &'static str),
    /// A message from one role to another of the same node.
    Local(Envelope),
    /// A role asked for these rows to become durable.
    Submitted { node: NodeId, writes: Vec<StateWrite> },
    /// A disk made these rows durable, or refused to.
    Disk {
        node: NodeId,
        writes: Vec<StateWrite>,
        refused: bool,
    },
    /// A request was answered.
    Reply {
        operation: u64,
        response: Result<Response, Error>,
    },
    /// An event for the timeline.
    Emitted { node: NodeId, event: TimelineEvent },
}

impl Happening {
    fn disk(node: NodeId, flushed: machine::Flushed) -> Self {
        Happening::Disk {
            node,
            writes: flushed.writes,
            refused: flushed.refused,
        }
    }
}

/// How to set a cluster up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) nodes: u16,
    pub(super) seed: u64,
    pub(super) bugs: Bugs,
    /// Whether what goes on inside a node happens in any order, as the driving contract allows.
    pub(super) scrambled: bool,
}

/// The cluster.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    /// Messages between nodes, in the order in which they were sent.
    pub(super) wire: Vec<Envelope>,
    /// Pairs of nodes whose messages stay on the wire.
    pub(super) blocked: BTreeSet<(NodeId, NodeId)>,
    /// Every request so far, and where it was asked.
    pub(super) operations: BTreeMap<u64, (NodeId, Request)>,
    pub(super) happenings: Vec<Happening>,
    placement: Placement,
    /// What the control plane would have agreed on; there is none here.
    keyspaces: Vec<Keyspace>,
}

impl Lab {
    /// A cluster whose nodes n1, n2, … have started and see each other.
    pub(super) fn new(setup: &Setup) -> Self {
        let members = (1..=setup.nodes).map(|number| Member {
            id: NodeId(number),
            peer_address: format!("n{number}:1"),
            client_address: format!("n{number}:2"),
            http_address: format!("n{number}:3"),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        });
        let ring = RingSettings {
            vnodes: 8,
            hash: HashKind::Murmur3,
        };
        let topology = Topology::new(ClusterId(7), 1, members.collect(), ring).expect("distinct members");
        let placement = Placement::new(topology).expect("a ring of small numbers");
        let nodes: BTreeSet<NodeId> = placement.topology().ids().collect();
        let machine = |node: &NodeId| {
            let machine = Machine::new(*node, placement.clone(), nodes.clone(), setup);
            (*node, machine)
        };
        let mut lab = Lab {
            now: Instant(0),
            machines: nodes.iter().map(machine).collect(),
            wire: Vec::new(),
            blocked: BTreeSet::new(),
            operations: BTreeMap::new(),
            happenings: Vec::new(),
            placement,
            keyspaces: Vec::new(),
        };
        for node in nodes {
            lab.boot(node);
        }
        lab
    }

    pub(super) fn placement(&self) -> &Placement {
        &self.placement
    }

    pub(super) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("a node of the cluster")
    }

    // ---- clients ----

    /// A client asks a role of a node. Gives the number that the reply will carry.
    pub(super) fn ask(&mut self, node: NodeId, role: RoleId, request: Request, timeout: Duration) -> u64 {
        let operation = self.operations.len() as u64 + 1;
        self.operations.insert(operation, (node, request.clone()));
        let header = Header {
            generation: 0,
            request: operation,
            deadline: self.now + timeout,
            trace: None,
        };
        let client = ClientRef {
            connection: 1,
            request: operation,
        };
        self.input(
            node,
            role,
            Event::Request {
                client,
                header,
                request,
            },
        );
        operation
    }

    // ---- network ----

    /// Delivers the message at this place of the wire.
    pub(super) fn deliver(&mut self, place: usize) {
        let envelope = self.wire.remove(place);
        let machine = &self.machines[&envelope.to.node];
        if !machine.running() {
            self.happenings
                .push(Happening::Lost(envelope, "the node is down"));
            return;
        }
        if !machine.has(envelope.to.role) {
            self.happenings
                .push(Happening::Lost(envelope, "the node does not serve that"));
            return;
        }
        self.happenings.push(Happening::Delivered(envelope.clone()));
        let event = Event::Message {
            from: envelope.from,
            header: envelope.header,
            message: envelope.message,
        };
        self.input(envelope.to.node, envelope.to.role, event);
    }

    /// Delivers what is on the wire now and may pass, optionally only from one node to another.
    pub(super) fn deliver_round(&mut self, between: Option<(NodeId, NodeId)>, at_most: usize) -> usize {
        let mut places: Vec<usize> = self.places(between);
        places.retain(|place| !self.blocked.contains(&self.wire[*place].pair()));
        places.truncate(at_most);
        let count = places.len();
        // Later messages join at the end, so the places of the others only move down by those taken before them.
        places
            .iter_mut()
            .enumerate()
            .for_each(|(taken, place)| *place -= taken);
        for place in places {
            self.deliver(place);
        }
        count
    }

    /// The places on the wire of the messages between two nodes, or between all.
    pub(super) fn places(&self, between: Option<(NodeId, NodeId)>) -> Vec<usize> {
        let wanted = |envelope: &Envelope| between.is_none_or(|pair| pair == envelope.pair());
        (0..self.wire.len())
            .filter(|place| wanted(&self.wire[*place]))
            .collect()
    }

    /// Delivers until nothing is left that may pass.
    pub(super) fn run(&mut self) {
        while self.deliver_round(None, usize::MAX) > 0 {}
    }

    /// The link from one node to another comes up or goes down, as the first one sees it.
    pub(super) fn link(&mut self, from: NodeId, to: NodeId, up: bool) {
        if !self.machines[&from].running() || !self.machine(from).set_link(to, up) {
            return;
        }
        for role in self.machines[&from].roles() {
            self.machine(from).enqueue(role, Event::Peer { node: to, up });
        }
        self.settle();
    }

    // ---- processes ----

    fn boot(&mut self, node: NodeId) {
        self.machine(node).boot();
        self.input(node, RoleId::Node, Event::Start);
        self.tell_keyspaces(node);
    }

    /// Has a keyspace with these settings served on every node.
    pub(super) fn create_keyspace(&mut self, settings: KeyspaceSettings) {
        let id = KeyspaceId(self.keyspaces.len() as u32 + 1);
        self.keyspaces.push(Keyspace {
            id,
            settings,
            groups: Vec::new(),
        });
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.tell_keyspaces(node);
        }
    }

    /// What a control role does when the keyspaces have changed, and when its node starts.
    fn tell_keyspaces(&mut self, node: NodeId) {
        let header = Header {
            generation: 1,
            request: 0,
            deadline: Instant::NEVER,
            trace: None,
        };
        let from = Address {
            node,
            role: RoleId::Control,
        };
        let event = Event::Message {
            from,
            header,
            message: Message::Keyspaces(self.keyspaces.clone()),
        };
        self.input(node, RoleId::Node, event);
    }

    /// A process ends at once. Of its persists in flight the first `synced` have reached the disk; nobody hears of it.
    pub(super) fn crash(&mut self, node: NodeId, synced: usize) {
        let flushed = self.machine(node).crash(synced);
        let flushed = flushed.into_iter().map(|flushed| Happening::disk(node, flushed));
        self.happenings.extend(flushed);
        self.wire.retain(|envelope| envelope.to.node != node);
        for other in self.others(node) {
            self.link(other, node, false);
        }
    }

    /// The process starts again with what its disk has.
    pub(super) fn restart(&mut self, node: NodeId) {
        let others = self.others(node);
        let mut alive: BTreeSet<NodeId> = others.iter().copied().collect();
        alive.insert(node);
        self.machine(node).set_alive(alive);
        self.boot(node);
        for other in others {
            self.link(other, node, true);
        }
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        let running = self.machines.values().filter(|machine| machine.running());
        running
            .map(|machine| machine.node)
            .filter(|other| *other != node)
            .collect()
    }

    // ---- disks ----

    /// The first `count` persists in flight become durable, or are refused by a full disk.
    pub(super) fn persist(&mut self, node: NodeId, count: usize) -> usize {
        let mut done = 0;
        while done < count && self.flush_one(node) {
            done += 1;
            self.settle();
        }
        done
    }

    /// The disk has no space for the newest persist in flight.
    pub(super) fn refuse_newest(&mut self, node: NodeId) {
        let refused = self.machine(node).refuse_newest();
        self.happenings
            .extend(refused.map(|flushed| Happening::disk(node, flushed)));
        self.settle();
    }

    fn flush_one(&mut self, node: NodeId) -> bool {
        let flushed = self.machine(node).flush_one();
        let some = flushed.is_some();
        self.happenings
            .extend(flushed.map(|flushed| Happening::disk(node, flushed)));
        some
    }

    /// What the node's disk has of a key.
    pub(super) fn durable(&self, node: NodeId, keyspace: KeyspaceId, key: &Key) -> Option<KeyState> {
        let row = self.machines[&node]
            .disk
            .row(Table::Records, &record_key(keyspace, key))?;
        Some(KeyState::decode(row).expect("roles write states"))
    }

    // ---- time ----

    /// Lets time pass; timers go off in their order.
    pub(super) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let due = self
                .machines
                .values()
                .filter_map(|machine| {
                    machine
                        .next_timer()
                        .map(|(at, role, id)| (at, machine.node, role, id))
                })
                .min();
            match due {
                Some((at, node, role, id)) if at <= until => {
                    self.now = self.now.max(at);
                    self.machine(node).take_timer(role, id);
                    self.input(node, role, Event::Timer { id });
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn now_of(&self, node: NodeId) -> Now {
        let wall = (EPOCH + self.now.0).saturating_add_signed(self.machines[&node].skew_micros);
        Now {
            instant: self.now,
            wall: WallTime(wall),
        }
    }

    // ---- driving the roles ----

    /// Ends the cluster: what every role instance was given and did.
    pub(super) fn into_recordings(self) -> Vec<Recording> {
        self.machines
            .into_values()
            .flat_map(Machine::into_recordings)
            .collect()
    }

    pub(super) fn input(&mut self, node: NodeId, role: RoleId, event: Event) {
        self.machine(node).enqueue(role, event);
        self.settle();
    }

    /// Handles what is in the mailboxes until they are empty.
    fn settle(&mut self) {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        loop {
            let mut idle = true;
            for node in &nodes {
                let now = self.now_of(*node);
                while let Some((role, effects)) = self.machine(*node).handle_next(now) {
                    idle = false;
                    for effect in effects {
                        self.perform(Address { node: *node, role }, effect);
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    fn perform(&mut self, from: Address, effect: Effect) {
        let node = from.node;
        match effect {
            Effect::Send { to, .. } if to.role == RoleId::Control => {}
            Effect::Send { to, header, message } => {
                let envelope = Envelope {
                    from,
                    to,
                    header,
                    message,
                };
                if to.node == node {
                    self.happenings.push(Happening::Local(envelope.clone()));
                    let event = Event::Message {
                        from,
                        header,
                        message: envelope.message,
                    };
                    self.machine(node).enqueue(to.role, event);
                } else if self.machines[&node].alive().contains(&to.node) {
                    self.wire.push(envelope);
                } else {
                    self.happenings.push(Happening::Lost(envelope, "no link"));
                }
            }
            Effect::Reply { client, response } => self.happenings.push(Happening::Reply {
                operation: client.request,
                response,
            }),
            Effect::Persist { token, ops, .. } => {
                let writes = disk::rows(ops);
                self.happenings.push(Happening::Submitted {
                    node,
                    writes: writes.clone(),
                });
                self.machine(node).disk.submit(from.role, token, writes);
                if !self.machines[&node].disk.held {
                    self.flush_one(node);
                }
            }
            Effect::Read { token, query } => {
                let result = self.machines[&node].disk.read(&query);
                self.machine(node)
                    .enqueue(from.role, Event::Read { token, result });
            }
            Effect::SetTimer { id, at } => self.machine(node).set_timer(from.role, id, at),
            Effect::Derive { .. } | Effect::Files { .. } | Effect::Relay { .. } | Effect::Group(_) => {
                unreachable!("no role of quorum mode asks for that")
            }
            Effect::Reconcile(specs) => self.machine(node).reconcile(&specs),
            Effect::Emit(event) => self.happenings.push(Happening::Emitted { node, event }),
            Effect::Span(_) | Effect::Measure(_) => {}
        }
    }
}
