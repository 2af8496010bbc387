//! The client as a role: routing, retries, deadlines and connections, without a socket or a clock.
//!
//! # What it does
//! It keeps one connection to each node of the cluster, knows from the topology which nodes store a key, and sends each
//! operation to the first of them that is reachable. Always the first: a put without a context replaces what its
//! coordinating replica has, so successive puts should go through the same replica.
//!
//! An operation is retried on another node only if that is certainly safe:
//! * it was not sent completely, or a node responded that it did nothing ([`Error::Overloaded`],
//!   [`Error::Closed`], [`Error::ConnectionLost`], or [`Error::NotFound`] of a keyspace that is known to exist);
//! * or the coordinator could not reach enough replicas ([`Error::Unavailable`], nothing was written): it may itself be
//!   partitioned, so the operation is retried once, on another replica;
//! * or it is a read, and the connection to its node is lost or the node is silent;
//! * or it is a command to a Raft group. Those go through [sessions](self::sessions): however often one is sent, it is
//!   executed once. So it is retried, on the probable leader, until a response arrives or its deadline passes.
//!
//! A put keeps its write id in all retries. A put whose connection breaks while it is pending fails with
//! [`Error::OutcomeUnknown`], and so does one whose deadline passes; a read then fails with [`Error::ReadTimeout`]. The
//! node knows the deadline too and can report its progress more precisely, so the client waits [`GRACE`] longer for its
//! response.
//!
//! A node that does not respond is probed (with a request for its topology, which also keeps the client up to date).
//! While it stays silent it is *suspected*: new operations prefer the other replicas. Any byte from it clears the
//! suspicion.
//!
//! # Driving it
//! Like any role: [`ClientEvent::Start`] first, effects performed in order. `Connect` numbers a connection; `Send`,
//! `Received` and `Disconnected` refer to that number. The shell in this crate maps them to sockets, the simulator to
//! its virtual network. # Invariants
//! * Every submitted operation completes exactly once.
//! * At most [`MAX_IN_FLIGHT`] operations and [`MAX_BYTES_IN_FLIGHT`] bytes are in flight; more are rejected with
//!   [`Error::Overloaded`].
//! * An operation completes at the latest [`GRACE`] after its deadline (if the timer comes on time).
//! * A definite error is returned only if no attempt may have been executed, or may be yet
//!   ([`Attempts`](quorate_core::attempts::Attempts)).
//! * No put is retried after an attempt that a node may have received without responding.
//! * No command gets a second number in a session after an attempt that may have been executed.

mod connection;
mod directory;
mod endpoint;
mod event;
mod links;
mod many;
mod operation;
mod parts;
mod requests;
mod routing;
mod sessions;
mod submission;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::BytesMut;
use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_core::time::{Instant, Now};
use quorate_protocol::frame::MAX_HELLO_FRAME;
use quorate_protocol::topology::Topology;
use quorate_raft::types::GroupId;
use rand_core::Rng as _;

pub use sessions::{IDLE as SESSION_IDLE, WINDOW as SESSION_WINDOW};

pub use links::operation_of;
pub use many::{PART_BYTES, PART_KEYS, WINDOW as PARTS_AT_ONCE};
pub use operation::unanswered;

use connection::{Connection, DIAL_TIMEOUT, FIRST_DIAL_PATIENCE, LinkCheck, Stage};
use directory::Directory;
use endpoint::{Endpoint, Link};
pub use event::{CallOptions, ClientConfig, ClientEffect, ClientEvent, Outcome, Trace};
use many::{Many, Part};
use operation::Operation;
use sessions::Sessions;

/// Maximum number of operations in flight.
pub const MAX_IN_FLIGHT: usize = 65_536;

/// Maximum bytes of keys and values in flight (a single operation may be larger).
pub const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;

/// How long after the deadline the client waits for the node's own error.
pub const GRACE: Duration = Duration::from_millis(100);

/// A client of one cluster; see the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCore {
    config: ClientConfig,
    /// Set by the first welcome, never changed.
    cluster: Option<ClusterId>,
    directory: Directory,
    /// The configured endpoints, in their order.
    seeds: Vec<Endpoint>,
    /// The members, or the nodes that responded at the seeds before the topology is known.
    nodes: BTreeMap<NodeId, Endpoint>,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    operations: BTreeMap<u64, Operation>,
    /// The operations on many keys.
    many: BTreeMap<u64, Many>,
    /// Those of them that may make progress.
    ready_many: BTreeSet<u64>,
    /// Their parts, which are operations too.
    parts: BTreeMap<u64, Part>,
    last_part: u64,
    /// The leader of each Raft group, as reported in responses.
    leaders: BTreeMap<GroupId, NodeId>,
    sessions: Sessions,
    /// The operations in stage `Waiting`.
    waiting: BTreeSet<u64>,
    /// The timer of each operation.
    timers: BTreeSet<(Instant, u64)>,
    /// Of the keys and values of all operations.
    bytes_in_flight: usize,
    /// The last sequence number of a write id.
    write_sequence: u64,
    /// The time of the pending timer.
    armed: Option<Instant>,
    /// Whether `Opened` was sent.
    opened: bool,
    closed: bool,
    /// Frames are encoded here and split off.
    scratch: BytesMut,
}

/// The context of handling one event.
struct Step<'a> {
    now: Now,
    rng: &'a mut Rng,
    effects: &'a mut Vec<ClientEffect>,
}

impl Step<'_> {
    fn instant(&self) -> Instant {
        self.now.instant
    }
}

impl Role for ClientCore {
    type Event = ClientEvent;
    type Effect = ClientEffect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: ClientEvent, effects: &mut Vec<ClientEffect>) {
        if self.closed {
            if let ClientEvent::Submit { op, .. } = event {
                effects.push(ClientEffect::Complete {
                    op,
                    outcome: unsent(closed()),
                });
            }
            return;
        }
        let step = &mut Step { now, rng, effects };
        match event {
            ClientEvent::Start => self.dial_due(step),
            ClientEvent::Submit { op, request, options } => self.submit(op, request, options, step),
            ClientEvent::Connected { connection } => self.connected(connection, step),
            ClientEvent::Received { connection, bytes } => self.received(connection, &bytes, step),
            ClientEvent::Disconnected {
                connection,
                written,
                error,
            } => self.disconnected(connection, written, error, step),
            ClientEvent::Timer => self.timer(step),
            ClientEvent::Close => self.close(step),
        }
        if !self.closed {
            self.advance_many(step);
            self.wake_sessions(step);
            self.open(step);
            self.arm(step);
        }
    }
}

impl ClientCore {
    /// A client that has not started.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without an endpoint, or with credentials that are too long.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::invalid("no endpoint: give at least one node as host:port"));
        }
        if config.credentials.len() > MAX_HELLO_FRAME / 2 {
            return Err(Error::invalid(format!(
                "the credentials are {} bytes but the limit is {}: shorten them",
                config.credentials.len(),
                MAX_HELLO_FRAME / 2
            )));
        }
        let seed = |address: &String| Endpoint::new(address.clone(), Instant(0));
        Ok(ClientCore {
            cluster: config.cluster,
            directory: Directory::default(),
            seeds: config.endpoints.iter().map(seed).collect(),
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            operations: BTreeMap::new(),
            many: BTreeMap::new(),
            ready_many: BTreeSet::new(),
            parts: BTreeMap::new(),
            last_part: 0,
            leaders: BTreeMap::new(),
            sessions: Sessions::default(),
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            bytes_in_flight: 0,
            write_sequence: 0,
            armed: None,
            opened: false,
            closed: false,
            scratch: BytesMut::new(),
            config,
        })
    }

    /// The number of operations in flight; of those on many keys, each part counts as well.
    pub fn in_flight(&self) -> usize {
        self.operations.len() + self.many.len()
    }

    /// The members, if known.
    pub fn topology(&self) -> Option<&Topology> {
        self.directory.topology()
    }

    /// The connected nodes, and whether each is suspected.
    pub fn connected_nodes(&self) -> BTreeMap<NodeId, bool> {
        self.connections
            .values()
            .filter_map(|connection| Some((connection.node()?, connection.suspect)))
            .collect()
    }

    /// The timer has fired.
    fn timer(&mut self, step: &mut Step<'_>) {
        self.armed = None;
        self.operations_due(step);
        self.dial_due(step);
        self.check_links(step);
        self.route_waiting(step);
    }

    /// Reports once whether the cluster was reached.
    fn open(&mut self, step: &mut Step<'_>) {
        if self.opened {
            return;
        }
        let result = if self.directory.topology().is_some() && self.directory.listed {
            let patient = |node: NodeId| self.first_dial_under_way(node, step.instant());
            if self.nodes.keys().any(|node| patient(*node)) {
                return;
            }
            Ok(())
        } else if self.seeds_failed_after(None) {
            Err(self.unreachable())
        } else {
            return;
        };
        self.opened = true;
        step.effects.push(ClientEffect::Opened(result));
    }

    /// Sets the timer, unless an earlier one is pending.
    fn arm(&mut self, step: &mut Step<'_>) {
        let now = step.instant();
        let mut wake = self.timers.first().map_or(Instant::NEVER, |(at, _)| *at);
        for endpoint in self.seeds.iter().chain(self.nodes.values()) {
            if let Link::Down { retry_at } = endpoint.link {
                wake = wake.min(retry_at);
            }
        }
        for connection in self.connections.values() {
            wake = wake.min(match connection.stage {
                Stage::Dialing | Stage::Greeting => {
                    let patience = connection.since + FIRST_DIAL_PATIENCE;
                    if patience > now {
                        patience
                    } else {
                        connection.since + DIAL_TIMEOUT
                    }
                }
                Stage::Ready { .. } => match connection.check_link(now) {
                    LinkCheck::Wait { until } => until,
                    LinkCheck::Probe | LinkCheck::Suspect | LinkCheck::GiveUp => now,
                },
            });
        }
        if wake < Instant::NEVER && self.armed.is_none_or(|armed| wake < armed) {
            self.armed = Some(wake);
            step.effects.push(ClientEffect::SetTimer { at: wake });
        }
    }

    /// Ends all operations and connections.
    fn close(&mut self, step: &mut Step<'_>) {
        self.closed = true;
        while let Some(op) = self.operations.keys().next().copied() {
            self.interrupt(op, step);
        }
        self.close_many(step);
        self.close_sessions(step);
        for connection in std::mem::take(&mut self.connections).into_keys() {
            step.effects.push(ClientEffect::Disconnect { connection });
        }
        if !self.opened {
            self.opened = true;
            step.effects.push(ClientEffect::Opened(Err(closed())));
        }
    }
}

/// The error of operations that are submitted to a closed client, or interrupted by its close.
fn closed() -> Error {
    Error::Closed("the client is closed: connect again".to_owned())
}

/// The outcome of an operation that was rejected without being sent.
fn unsent(error: Error) -> Outcome {
    Outcome {
        result: Err(error),
        node: None,
        boot: None,
        attempts: 0,
        elapsed: Duration::ZERO,
        trace_id: None,
    }
}

/// Half of `wait` plus a random part of the other half, so that clients do not retry all at once.
fn jitter(wait: Duration, rng: &mut Rng) -> Duration {
    let half = wait / 2;
    let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(rng.next_u64() % micros.saturating_add(1))
}

#[cfg(test)]
impl ClientCore {
    /// Checks the invariants between events.
    pub(crate) fn check(&self) {
        use operation::Stage;
        let mut in_flight: BTreeMap<u64, usize> = BTreeMap::new();
        for (op, operation) in &self.operations {
            assert!(self.timers.contains(&(operation.timer, *op)), "{op} has no timer");
            let waits = matches!(operation.stage, Stage::Waiting { .. });
            assert_eq!(waits, self.waiting.contains(op), "{op} is {:?}", operation.stage);
            if let Stage::Sent { connection, .. } = operation.stage {
                *in_flight.entry(connection).or_default() += 1;
            }
        }
        assert_eq!(self.timers.len(), self.operations.len());
        if !self.closed {
            self.check_sessions();
        }
        assert_eq!(
            self.bytes_in_flight,
            self.operations
                .values()
                .map(|operation| operation.bytes)
                .sum::<usize>()
                + self.many.values().map(|many| many.bytes).sum::<usize>()
        );
        self.check_many();
        for (connection, count) in in_flight {
            assert_eq!(
                self.connections[&connection].in_flight, count,
                "connection {connection}"
            );
        }
        for endpoint in self.seeds.iter().chain(self.nodes.values()) {
            if let Link::Dialing { connection } | Link::Ready { connection } = endpoint.link {
                assert!(
                    self.connections.contains_key(&connection) || self.closed,
                    "{endpoint:?}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
