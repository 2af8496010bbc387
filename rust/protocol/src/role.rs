//! The roles of a node, and the events and effects that they share; see [`quorate_core::contract`] for how they are driven.

use std::collections::BTreeSet;

use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileTask};
use quorate_core::ids::{KeyspaceId, NodeId, ReplicaId};
use quorate_core::store::{JournalOp, Priority, Query, Rows, StateWrite};
use quorate_core::time::Instant;
use quorate_raft::settings::Timing;
use quorate_raft::types::GroupId;
use serde::{Deserialize, Serialize};

use crate::api::{GroupClaim, Request, Response};
use crate::keyspace::Keyspace;
use crate::local::LocalMessage;
use crate::message::{Header, Message};
use crate::placement::Placement;
use crate::telemetry::{Measurement, Span, TimelineEvent};

/// Which role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleId {
    /// Decides which role instances exist ([`crate::node`]).
    Node,
    /// Agrees with the other nodes on members and keyspaces (`quorate_consensus::control`).
    Control,
    /// Coordinates the requests of one keyspace (`quorate_quorum::coordinator`).
    Coordinator(KeyspaceId),
    /// Stores one keyspace's share of keys on this node (`quorate_quorum::replica`).
    Replica(KeyspaceId),
    /// Finds the leaders of one consensus keyspace's groups (`quorate_consensus::shard::forwarder`).
    Forwarder(KeyspaceId),
    /// A server of one group of a consensus keyspace (`quorate_consensus::shard`).
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
    /// A message from another role of this node.
    Local {
        /// Who sent it.
        from: RoleId,
        /// Its envelope.
        header: Header,
        /// What it says.
        message: LocalMessage,
    },
    /// Everything that waited with the event that asked for this ([`Effect::EndTurn`]) has been handled.
    TurnEnded,
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
    Flushed {
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

/// What a role of a node can ask its shell for.
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
    /// Deliver a message to another role of this node.
    SendLocal {
        /// To whom.
        to: RoleId,
        /// Its envelope.
        header: Header,
        /// What it says.
        message: LocalMessage,
    },
    /// Say so ([`Event::TurnEnded`]) when what waits for this role now has been handled: who has put something aside deals
    /// with all of it together.
    EndTurn,
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
    /// say later when they survive a crash ([`Event::Flushed`]). A crash before that takes them, whole effects only and
    /// the later ones first; then they are derived again.
    ///
    /// Every [`Read`](Effect::Read) and every [`FileTask::Save`] that is performed after it sees these rows, be it in the
    /// same turn; one performed before may see them too. Each of them sees all rows of an effect or none.
    ApplyRows {
        /// Returned in the answer; unique among those in flight of this role.
        token: u64,
        /// The rows.
        writes: Vec<StateWrite>,
    },
    /// Read durable state, then say what it is ([`Event::Read`]). The answer to one query is one moment's view: from the
    /// beginning of its range to its last row (to the end, if there is no more) it has all rows of a
    /// [`ApplyRows`](Effect::ApplyRows) effect or none. Two queries may be moments apart.
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
    /// Do something with a file of rows, then say so ([`Event::Files`]). See [`quorate_core::files`].
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
    /// A forwarder to this keyspace, and the servers of its groups that belong to this node.
    Consensus(Keyspace),
}

impl Spec {
    /// Whether instances of the one can go on as instances of the other. What a change of settings does not replace, it
    /// tells ([`LocalMessage::Keyspaces`]).
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
    /// This node, and its data directory. (The dots that it gives out have other ids: see [`quorate_core::ids`].)
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
