//! Connections between nodes: dialling, handshake, and the link on top.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::{BootId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::link::{Link, LinkEffect, LinkEvent, LinkSettings, SessionId as LinkSessionId};
use quorate_protocol::role::{Address, Event};
use quorate_protocol::wire::{
    HELLO_PREFIX, Layout, PEER_VERSION_MAX, PEER_VERSION_MIN, PeerAnswer, PeerHello, PeerWelcome,
    hello_body_length,
};

use super::machine::Port;
use super::{QueuedEvent, World};
use crate::network::{Arrival, Endpoint, SessionId, Side};
use crate::record::Hosted;

/// The timeout of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// The maximum backoff after the first failure; doubled with each failure up to 16 times this.
const BACKOFF: Duration = Duration::from_millis(50);
/// The maximum delay until a role handles its mail.
const LONGEST_TAKING: Duration = Duration::from_micros(200);

/// A node's end of the link to one peer.
pub(super) struct Peer {
    pub(super) link: Hosted<Link>,
    /// The current setting of the link's timer, and when it is due by the node's clock.
    set: u64,
    due: Instant,
    /// Failures to connect since the last success.
    failures: u32,
}

impl World {
    /// Creates the links of a new process. Of two nodes, the one with the lower id dials.
    pub(super) fn start_peers(&mut self, node: NodeId, boot: BootId) {
        let now = self.clocks(node);
        for peer in self.nodes().filter(|peer| *peer != node) {
            let seed = self.rng.number();
            let link = Hosted::new(
                Link::new(LinkSettings::default(), now.instant),
                seed,
                self.config.record,
            );
            self.process_mut(node).peers.insert(
                peer,
                Peer {
                    link,
                    set: 0,
                    due: Instant::NEVER,
                    failures: 0,
                },
            );
            if node < peer {
                let delay = self.rng.between(Duration::ZERO, Duration::from_millis(5));
                self.queue
                    .push(self.now + delay, QueuedEvent::Dial { node, boot, peer });
            }
        }
    }

    pub(super) fn dial(&mut self, node: NodeId, boot: BootId, peer: NodeId) {
        if !self.is_running(node, boot) || self.has_port_to(node, peer) {
            return;
        }
        let (from, to) = (Endpoint::Node(node), Endpoint::Node(peer));
        let session = self.with_network(|network, now, flights| network.dial(now, from, to, flights));
        self.process_mut(node)
            .ports
            .insert(session, Port::Dialling { peer });
        self.queue.push(
            self.now + HANDSHAKE,
            QueuedEvent::HandshakeDeadline { node, boot, session },
        );
    }

    /// Whether there is a connection to a peer, or one is being established.
    fn has_port_to(&mut self, node: NodeId, wanted: NodeId) -> bool {
        self.process_mut(node).ports.values().any(|port| match port {
            Port::Dialling { peer } | Port::Greeting { peer } | Port::Link { peer, .. } => *peer == wanted,
            Port::Arriving | Port::Client(_) => false,
        })
    }

    /// The dialling side retries with backoff.
    fn redial(&mut self, node: NodeId, peer: NodeId) {
        if node > peer {
            return;
        }
        let process = self.process_mut(node);
        let boot = process.boot;
        let failures = &mut process
            .peers
            .get_mut(&peer)
            .expect("every node is a peer")
            .failures;
        let most = BACKOFF * (1 << (*failures).min(4));
        *failures += 1;
        let delay = self.rng.between(most / 2, most);
        self.queue
            .push(self.now + delay, QueuedEvent::Dial { node, boot, peer });
    }

    pub(super) fn handshake_deadline(&mut self, node: NodeId, boot: BootId, session: SessionId) {
        if !self.is_running(node, boot) {
            return;
        }
        match self.process_mut(node).ports.get(&session) {
            Some(Port::Dialling { .. } | Port::Greeting { .. }) => {
                self.end_port(node, session, Side::Dialler, "no hello")
            }
            Some(Port::Arriving) => self.end_port(node, session, Side::Listener, "no hello"),
            _ => {}
        }
    }

    /// Closes a connection.
    fn end_port(&mut self, node: NodeId, session: SessionId, side: Side, reason: &str) {
        self.with_network(|network, now, flights| network.end(now, session, side, flights));
        self.port_ended(node, session, reason);
    }

    fn port_ended(&mut self, node: NodeId, session: SessionId, reason: &str) {
        let process = self.process_mut(node);
        match process.ports.remove(&session) {
            None | Some(Port::Arriving) => {}
            Some(Port::Dialling { peer } | Port::Greeting { peer }) => self.redial(node, peer),
            Some(Port::Link {
                peer, session: name, ..
            }) => {
                process.carriers.remove(&name);
                self.link_event(
                    node,
                    peer,
                    LinkEvent::SessionDown {
                        session: name,
                        reason: reason.to_owned(),
                    },
                );
                self.redial(node, peer);
            }
            Some(Port::Client(connection)) => {
                process.connections.remove(&connection.number);
                if let Some(mut in_flight) = process.in_flight.remove(&connection.number) {
                    in_flight.release_all(&mut process.totals);
                }
            }
        }
    }

    /// Handles an arrival at a node.
    pub(super) fn arrived_at_node(&mut self, node: NodeId, session: SessionId, arrival: Arrival) {
        if !self.is_up(node) {
            return;
        }
        match arrival {
            Arrival::Knock { from } => {
                let boot = self.process_mut(node).boot;
                let port = match from {
                    Endpoint::Node(_) => Port::Arriving,
                    Endpoint::Client(_) => Port::Client(self.new_connection(node, session)),
                };
                self.process_mut(node).ports.insert(session, port);
                self.with_network(|network, now, flights| network.accept(now, session, flights));
                self.queue.push(
                    self.now + HANDSHAKE,
                    QueuedEvent::HandshakeDeadline { node, boot, session },
                );
            }
            Arrival::Opened => self.say_hello(node, session),
            Arrival::Ended => self.port_ended(node, session, "the connection ended"),
            Arrival::Out => self.left(node, session),
            Arrival::Bytes(bytes) => match self.process_mut(node).ports.get(&session) {
                None | Some(Port::Dialling { .. }) => {}
                Some(Port::Arriving) => self.hello(node, session, &bytes),
                Some(Port::Greeting { peer }) => {
                    let peer = *peer;
                    self.hello_answered(node, session, peer, &bytes);
                }
                Some(Port::Link { peer, session, .. }) => {
                    let (peer, event) = (
                        *peer,
                        LinkEvent::Received {
                            session: *session,
                            batch: bytes,
                        },
                    );
                    self.link_event(node, peer, event);
                }
                Some(Port::Client(_)) => self.client_bytes(node, session, &bytes),
            },
        }
    }

    // ---- hello ----

    fn own_hello(&self, node: NodeId, peer: NodeId, boot: BootId) -> PeerHello {
        PeerHello {
            version_min: PEER_VERSION_MIN,
            version_max: PEER_VERSION_MAX,
            features: 0,
            cluster: self.cluster,
            node,
            replica: self.machines[&node].replica,
            boot,
            generation: self.placement.topology().generation,
            gateway: 0,
            expects: peer,
            credentials: Bytes::new(),
            knows: Some(self.machines[&peer].replica),
            layout: Layout::of(self.placement.topology()),
        }
    }

    /// The connection is open: the dialling side sends the first hello.
    fn say_hello(&mut self, node: NodeId, session: SessionId) {
        let process = self.process_mut(node);
        let boot = process.boot;
        let Some(Port::Dialling { peer }) = process.ports.get(&session) else {
            return;
        };
        let peer = *peer;
        process.ports.insert(session, Port::Greeting { peer });
        let hello = self.own_hello(node, peer, boot).encode();
        self.with_network(|network, now, flights| {
            network.send(now, session, Side::Dialler, hello.into(), flights)
        });
    }

    /// Handles the hello of a dialling node.
    fn hello(&mut self, node: NodeId, session: SessionId, bytes: &[u8]) {
        let boot = self.process_mut(node).boot;
        let hello = body(bytes).and_then(|body| PeerHello::decode(body).ok());
        let Some(hello) = hello else {
            return self.end_port(node, session, Side::Listener, "garbage");
        };
        let topology = self.placement.topology();
        let agreed = hello.negotiate(self.cluster, node).and_then(|spoken| {
            hello.agree(node, topology.generation, &Layout::of(topology))?;
            Ok(spoken)
        });
        let answer = match agreed {
            Err(error) => PeerAnswer::Refused(error),
            Ok((version, features)) => PeerAnswer::Welcome(PeerWelcome {
                version,
                features,
                cluster: self.cluster,
                node,
                replica: self.machines[&node].replica,
                boot,
                generation: self.placement.topology().generation,
                gateway: 0,
                session: self.rng.number() | 1,
            }),
        };
        let bytes = Bytes::from(answer.encode());
        self.with_network(|network, now, flights| network.send(now, session, Side::Listener, bytes, flights));
        match answer {
            PeerAnswer::Refused(_) | PeerAnswer::Disowned(_) => {
                self.end_port(node, session, Side::Listener, "refused")
            }
            PeerAnswer::Welcome(welcome) => {
                self.session_up(node, session, hello.node, LinkSessionId(welcome.session))
            }
        }
    }

    fn hello_answered(&mut self, node: NodeId, session: SessionId, peer: NodeId, bytes: &[u8]) {
        let boot = self.process_mut(node).boot;
        let hello = self.own_hello(node, peer, boot);
        match body(bytes).and_then(|body| PeerAnswer::decode(body).ok()) {
            Some(PeerAnswer::Welcome(welcome)) if welcome.check(&hello).is_ok() => {
                self.process_mut(node)
                    .peers
                    .get_mut(&peer)
                    .expect("every node is a peer")
                    .failures = 0;
                self.session_up(node, session, peer, LinkSessionId(welcome.session));
            }
            _ => self.end_port(node, session, Side::Dialler, "refused"),
        }
    }

    fn session_up(&mut self, node: NodeId, carrier: SessionId, peer: NodeId, session: LinkSessionId) {
        let process = self.process_mut(node);
        // The dialler's hello was sent before it was answered; the listener's answer is being sent.
        let hello_out = side_of(node, peer) == Side::Dialler;
        process.ports.insert(
            carrier,
            Port::Link {
                peer,
                session,
                hello_out,
            },
        );
        process.carriers.insert(session, carrier);
        self.link_event(node, peer, LinkEvent::SessionUp { session });
    }

    // ---- the link ----

    /// Bytes were sent on this connection.
    fn left(&mut self, node: NodeId, carrier: SessionId) {
        if let Some(Port::Link {
            peer,
            session,
            hello_out,
        }) = self.process_mut(node).ports.get_mut(&carrier)
        {
            // The first notice is about the hello.
            if std::mem::replace(hello_out, true) {
                let (peer, session) = (*peer, *session);
                self.link_event(node, peer, LinkEvent::Sent { session });
            }
        }
    }

    pub(super) fn link_event(&mut self, node: NodeId, peer: NodeId, event: LinkEvent) {
        let now = self.clocks(node);
        let who = format_args!("{node} link to {peer}");
        self.event_log.record(self.now, who, "takes", &event);
        let port = self
            .process_mut(node)
            .peers
            .get_mut(&peer)
            .expect("every node is a peer");
        let effects = port.link.handle(now, event);
        for effect in effects {
            self.event_log.record(self.now, who, "wants", &effect);
            self.perform_link(node, peer, effect);
        }
    }

    fn perform_link(&mut self, node: NodeId, peer: NodeId, effect: LinkEffect) {
        match effect {
            LinkEffect::Transmit { session, batch } => {
                let Some(&carrier) = self.process_mut(node).carriers.get(&session) else {
                    return;
                };
                let side = side_of(node, peer);
                self.with_network(|network, now, flights| network.send(now, carrier, side, batch, flights));
            }
            LinkEffect::Deliver {
                session,
                envelopes,
                bytes,
                count,
            } => {
                let boot = self.process_mut(node).boot;
                for envelope in envelopes {
                    let from = Address {
                        node: peer,
                        role: envelope.from,
                    };
                    let event = Event::Message {
                        from,
                        header: envelope.header,
                        message: envelope.message,
                    };
                    for delay in self.deliveries() {
                        self.mail(node, envelope.to, event.clone(), delay);
                    }
                }
                let delay = self.rng.between(Duration::ZERO, LONGEST_TAKING);
                self.queue.push(
                    self.now + delay,
                    QueuedEvent::Taken {
                        node,
                        boot,
                        peer,
                        session,
                        bytes,
                        count,
                    },
                );
            }
            LinkEffect::Close { session, .. } => {
                if let Some(&carrier) = self.process_mut(node).carriers.get(&session) {
                    self.end_port(node, carrier, side_of(node, peer), "closed by the link");
                }
            }
            LinkEffect::Up { .. } => self.peer_changed(node, peer, true),
            LinkEffect::Down { .. } => self.peer_changed(node, peer, false),
            LinkEffect::SetTimer { at } => {
                let process = self.process_mut(node);
                let (set, boot) = (process.next_set(), process.boot);
                let port = process.peers.get_mut(&peer).expect("every node is a peer");
                (port.set, port.due) = (set, at);
                self.await_link_timer(node, boot, peer);
            }
            LinkEffect::Shed { .. } => {}
        }
    }

    /// The message faults of an arrived message: the delay of each delivery, none if it is dropped.
    fn deliveries(&mut self) -> Vec<Duration> {
        let message_faults = self.message_faults;
        let mut deliveries = vec![self.mail_time()];
        if self.rng.chance(message_faults.loss) {
            deliveries.clear();
        } else if self.rng.chance(message_faults.repetition) {
            deliveries.push(self.rng.between(Duration::ZERO, message_faults.held_for));
        }
        if self.rng.chance(message_faults.reordering) {
            for delay in &mut deliveries {
                *delay += self.rng.between(Duration::ZERO, message_faults.held_for);
            }
        }
        deliveries
    }

    /// Notifies all roles of a change of a peer.
    fn peer_changed(&mut self, node: NodeId, peer: NodeId, up: bool) {
        let roles: Vec<_> = self.process_mut(node).roles.keys().copied().collect();
        for role in roles {
            self.mail(node, role, Event::Peer { node: peer, up }, Duration::ZERO);
        }
    }

    fn await_link_timer(&mut self, node: NodeId, boot: BootId, peer: NodeId) {
        let Peer { set, due, .. } = self.process_mut(node).peers[&peer];
        if let Some(at) = self.when(node, due) {
            self.queue.push(
                at,
                QueuedEvent::LinkTimer {
                    node,
                    boot,
                    peer,
                    set,
                },
            );
        }
    }

    pub(super) fn link_timer(&mut self, node: NodeId, boot: BootId, peer: NodeId, set: u64) {
        if !self.is_running(node, boot) || self.process_mut(node).peers[&peer].set != set {
            return;
        }
        let due = self.process_mut(node).peers[&peer].due;
        if self.is_due(node, due) {
            self.link_event(node, peer, LinkEvent::Timer);
        } else {
            self.await_link_timer(node, boot, peer);
        }
    }

    pub(super) fn taken(
        &mut self,
        node: NodeId,
        boot: BootId,
        peer: NodeId,
        session: LinkSessionId,
        bytes: u64,
        count: u64,
    ) {
        if self.is_running(node, boot) {
            self.link_event(
                node,
                peer,
                LinkEvent::Taken {
                    session,
                    bytes,
                    count,
                },
            );
        }
    }
}

/// The side of a node on its connections to this peer.
fn side_of(node: NodeId, peer: NodeId) -> Side {
    if node < peer {
        Side::Dialler
    } else {
        Side::Listener
    }
}

/// The body of a hello that arrived in one chunk.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<HELLO_PREFIX>()?;
    rest.get(..hello_body_length(prefix).ok()?)
}
