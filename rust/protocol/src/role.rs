//! The role contract: what every protocol in Quorate is, and how it is driven.
//!
//! A **role** is a pure state machine. It is given an event, the time and a seeded random source; it changes its own
//! state and returns effects. It never reads a clock, never does I/O, never spawns. Whoever drives it is a **shell**:
//!
//! * in a node, one ractor actor per role instance (mailbox in, effects out);
//! * in the simulator, one thread with virtual time, a network and disks that misbehave on a seeded schedule.
//!
//! # The driving contract
//! 1. The shell calls [`Role::handle`] with one event at a time, `now` never running backwards.
//! 2. It performs the returned effects in their order. It may take as long as it likes, and other events may come in
//!    between: an effect that has an answer names a `token`, and the answer is an event that carries it.
//! 3. The same sequence of `(now, event)` with the same seed gives the same effects. A recording of a role's inputs
//!    ([`Input`]) therefore replays it exactly; a test holds every role to that.
//! 4. A role whose invariant breaks panics. It is never restarted in place: the shell ends the whole node, which
//!    recovers from disk (an old promise of the role may still be queued for the disk).
//!
//! The roles of the data plane share one alphabet, [`Event`] and [`Effect`]. The per-peer link, the batching of
//! commits and the client have alphabets of their own, and the same contract.

use std::collections::BTreeSet;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::api::{GroupClaim, Request, Response};
use crate::bugs::Bugs;
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId, ReplicaId};
use crate::keyspace::Keyspace;
use crate::message::{Header, Message};
use crate::placement::Placement;
use crate::raft::settings::Timing;
use crate::raft::types::GroupId;
use crate::store::{JournalOp, Priority, StateWrite, StreamId, Table};
use crate::telemetry::{Measurement, Span, TimelineEvent};
use crate::time::{Instant, Now};

pub use crate::files::{FileDone, FileId, FileTask};

/// The random source of a role instance: seeded by its shell, drawn from only inside [`Role::handle`].
pub type Rng = ChaCha8Rng;

/// The random source for a role with this seed.
pub fn rng_from_seed(seed: u64) -> Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A pure state machine; the module says how it is driven.
pub trait Role: Clone {
    /// What can happen to it.
    type Event;
    /// What it can ask for.
    type Effect;

    /// Takes one event and appends the effects it has to `effects`.
    fn handle(&mut self, now: Now, rng: &mut Rng, event: Self::Event, effects: &mut Vec<Self::Effect>);
}

/// Which role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleId {
    /// Decides which role instances exist ([`crate::node`]).
    Node,
    /// Agrees with the other nodes on members and keyspaces ([`crate::control`]).
    Control,
    /// Coordinates the requests of one keyspace ([`crate::quorum::coordinator`]).
    Coordinator(KeyspaceId),
    /// Stores one keyspace's share of keys on this node ([`crate::quorum::replica`]).
    Replica(KeyspaceId),
    /// Finds the leaders of one consensus keyspace's groups ([`crate::shard::gate`]).
    Gate(KeyspaceId),
    /// A server of one group of a consensus keyspace ([`crate::shard`]).
    Shard(GroupId),
}

/// One role instance in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// On which node.
    pub node: NodeId,
    /// Which of its roles.
    pub role: RoleId,
}

/// A client's request as the listener knows it; opaque to roles, which hand it back with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientRef {
    /// The connection it came on, unique within a boot.
    pub connection: u64,
    /// The id that the client gave it.
    pub request: u64,
}

/// A read of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// One row.
    Get {
        /// Where.
        table: Table,
        /// Which.
        key: Bytes,
    },
    /// Rows in key order, `start` inclusive, `end` exclusive, until either limit is reached (at least one row).
    Range {
        /// Where.
        table: Table,
        /// The first key.
        start: Bytes,
        /// The first key that is too far.
        end: Bytes,
        /// At most this many rows.
        limit_rows: u32,
        /// About this many bytes of keys and values.
        limit_bytes: u32,
    },
    /// A hard state ([`JournalOp::PutHard`]): at most one row.
    Hard {
        /// Its name.
        key: Bytes,
    },
    /// Entries of a stream from a position on, until either limit is reached (at least one). The keys of the rows are
    /// the positions, eight bytes, big endian.
    Log {
        /// Whose log.
        stream: StreamId,
        /// The first position.
        from: u64,
        /// At most this many entries.
        limit_rows: u32,
        /// About this many bytes of entries.
        limit_bytes: u32,
    },
}

/// The rows that answer a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// Key and value, in key order; at most one for a `Get`.
    pub rows: Vec<(Bytes, Bytes)>,
    /// For a `Range` and a `Log`: a limit was reached before the end.
    pub more: bool,
}

/// What can happen to a role of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// It exists now. The first event, once; recovery begins with the reads it asks for.
    Start,
    /// A message from another role, here or elsewhere.
    Message {
        /// Who sent it.
        from: Address,
        /// Its envelope; the deadline is in this process's time.
        header: Header,
        /// What it says.
        message: Message,
    },
    /// A client asks.
    Request {
        /// To be handed back with the reply.
        client: ClientRef,
        /// Deadline and trace.
        header: Header,
        /// What it asks.
        request: Request,
    },
    /// A timer went off.
    Timer {
        /// The one that was set.
        id: u64,
    },
    /// These persists are durable.
    Persisted {
        /// Their tokens, in the order in which they were asked for.
        tokens: Vec<u64>,
    },
    /// Derived rows that survive a crash from now on: the log that they were derived from may be trimmed up to there.
    Settled {
        /// Their tokens, in the order in which they were derived.
        tokens: Vec<u64>,
    },
    /// This persist was refused before anything was written; the disk is full.
    PersistRefused {
        /// Its token.
        token: u64,
    },
    /// A read answered, from durable state only.
    Read {
        /// Its token.
        token: u64,
        /// The rows, or [`Error::CorruptRecord`].
        result: Result<Rows, Error>,
    },
    /// The link to a peer came up (hello done) or went down.
    Peer {
        /// Which peer.
        node: NodeId,
        /// Whether it can be reached now.
        up: bool,
    },
    /// Something that was asked of a file is done, or is not.
    Files {
        /// Its token.
        token: u64,
        /// What was done, or why not: [`Error::NotFound`] for a file that is not there, [`Error::StorageFull`],
        /// [`Error::CorruptRecord`] for a file or a row that is damaged, [`Error::InvalidArgument`] for a task that makes
        /// no sense.
        result: Result<FileDone, Error>,
    },
    /// Its keyspace was dropped. From now on it asks for nothing to be stored, and answers who waits and who still comes;
    /// it goes when the effects of that are performed.
    Dropped,
}

/// What a role of the data plane can ask its shell for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// Deliver a message, at most once and in no promised order. To this node it goes from mailbox to mailbox.
    Send {
        /// To whom.
        to: Address,
        /// Its envelope.
        header: Header,
        /// What it says.
        message: Message,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        client: ClientRef,
        /// The answer.
        response: Result<Response, Error>,
    },
    /// Make durable, then say so ([`Event::Persisted`]). What the roles of a node ask for with one priority is done in the
    /// order in which they have asked: without any operation, this says that all of that was done, or refused.
    Persist {
        /// Returned in the answer; unique among those in flight of this role.
        token: u64,
        /// Against the other requests that wait.
        priority: Priority,
        /// All of them or none.
        ops: Vec<JournalOp>,
    },
    /// Make rows readable, at once, that this role derives from entries of its log which are durable and committed;
    /// say later when they survive a crash ([`Event::Settled`]). A crash before that takes them, whole effects only and
    /// the later ones first; then they are derived again.
    ///
    /// Every [`Read`](Effect::Read) and every [`FileTask::Save`] that is performed after it sees these rows, be it in the
    /// same turn; one performed before may see them too. Each of them sees all rows of an effect or none.
    Derive {
        /// Returned in the answer; unique among those in flight of this role.
        token: u64,
        /// The rows.
        writes: Vec<StateWrite>,
    },
    /// Read durable state, then say what it is ([`Event::Read`]). The answer to one query is one moment's view: from the
    /// beginning of its range to its last row (to the end, if there is no more) it has all rows of a
    /// [`Derive`](Effect::Derive) effect or none. Two queries may be moments apart.
    Read {
        /// Returned in the answer; unique among those in flight of this role.
        token: u64,
        /// What to read.
        query: Query,
    },
    /// Wake this role with [`Event::Timer`]; replaces a timer with the same id.
    SetTimer {
        /// Its name within the role.
        id: u64,
        /// When.
        at: Instant,
    },
    /// From now on exactly these role instances exist beside the node role (only the node role asks for this).
    Reconcile(Vec<Spec>),
    /// Put an event on the cluster's timeline.
    Emit(TimelineEvent),
    /// A finished span of a sampled trace.
    Span(Box<Span>),
    /// A finished operation, for the metrics.
    Measure(Measurement),
    /// Do something with a file of rows, then say so ([`Event::Files`]). See [`crate::files`].
    Files {
        /// Returned in the answer; unique among those in flight of this role.
        token: u64,
        /// What to do.
        task: FileTask,
    },
    /// Hand a client's request to another role of this node, as if it had come there.
    Relay {
        /// Which role.
        to: RoleId,
        /// Whose request.
        client: ClientRef,
        /// Deadline and trace.
        header: Header,
        /// What it asks.
        request: Request,
    },
    /// What this node's server of a Raft group claims now, for the metrics.
    Group(Box<GroupClaim>),
}

/// Role instances that should exist. [`Spec::is_same`] says which specs mean the same instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Spec {
    /// The control role.
    Control,
    /// A coordinator and a replica of this keyspace.
    Quorum(Keyspace),
    /// A gate to this keyspace, and the servers of its groups that belong to this node.
    Consensus(Keyspace),
}

impl Spec {
    /// Whether instances of the one can go on as instances of the other. What a change of settings does not replace, it
    /// tells ([`Message::Keyspaces`]).
    pub fn is_same(&self, other: &Spec) -> bool {
        match (self, other) {
            (Spec::Control, Spec::Control) => true,
            (Spec::Quorum(one), Spec::Quorum(other)) => {
                one.id == other.id
                    && one.settings.mode == other.settings.mode
                    && one.settings.replicas == other.settings.replicas
            }
            (Spec::Consensus(one), Spec::Consensus(other)) => {
                one.id == other.id && one.groups == other.groups
            }
            _ => false,
        }
    }
}

/// What a role instance is created with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Surroundings {
    /// This node, and its data directory. (The dots that it gives out have other ids: see [`crate::ids`].)
    pub replica: ReplicaId,
    /// The members, and who owns which keys.
    pub placement: Placement,
    /// The nodes that can be reached now, this one included.
    pub alive: BTreeSet<NodeId>,
    /// How long things take in its Raft groups: the control plane's, and those of keyspaces.
    pub raft: Timing,
    /// Deliberate mistakes, for tests of the tests.
    pub bugs: Bugs,
}

impl Surroundings {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.replica.node()
    }
}

/// One recorded input of a role: what replays it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input<E> {
    /// The time it was given.
    pub now: Now,
    /// The event it was given.
    pub event: E,
}
