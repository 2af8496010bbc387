//! The roles of a node, with their events and effects; see [`quorate_core::contract`] for the driving contract.

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

/// A client's request as the listener knows it; opaque to roles, which return it with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientRef {
    /// The connection it came on, unique within a boot.
    pub connection: u64,
    /// Its id, assigned by the client.
    pub request: u64,
}

/// An event of a node's role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// The instance was created. The first event, once; recovery begins with the reads that it requests.
    Start,
    /// A message from another role, of this node or another.
    Message {
        /// The sender.
        from: Address,
        /// Its envelope; the deadline is in this process's time.
        header: Header,
        /// The message.
        message: Message,
    },
    /// A message from another role of this node.
    Local {
        /// The sender.
        from: RoleId,
        /// Its envelope.
        header: Header,
        /// The message.
        message: LocalMessage,
    },
    /// All events that were pending when [`Effect::EndTurn`] was requested have been handled.
    TurnEnded,
    /// A request of a client.
    Request {
        /// Returned with the reply.
        client: ClientRef,
        /// Deadline and trace.
        header: Header,
        /// The request.
        request: Request,
    },
    /// A timer fired.
    Timer {
        /// Its id.
        id: u64,
    },
    /// These persists are durable.
    Persisted {
        /// Their tokens, in the order in which they were requested.
        tokens: Vec<u64>,
    },
    /// Derived rows that survive a crash from now on: the log from which they were derived may be compacted up to there.
    Flushed {
        /// Their tokens, in the order in which they were derived.
        tokens: Vec<u64>,
    },
    /// This persist was refused before anything was written; the disk is full.
    PersistRefused {
        /// Its token.
        token: u64,
    },
    /// A read completed, from durable state only.
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
        /// Whether it is reachable now.
        up: bool,
    },
    /// A file task completed.
    Files {
        /// Its token.
        token: u64,
        /// The result, or [`Error::NotFound`] for a missing file, [`Error::StorageFull`], [`Error::CorruptRecord`] for a
        /// damaged file or row, [`Error::InvalidArgument`] for an invalid task.
        result: Result<FileDone, Error>,
    },
    /// Its keyspace was dropped. From now on the instance stores nothing, and fails pending and new requests; it ends when
    /// the effects of this event are performed.
    Dropped,
}

/// An effect that a node's role requests from its shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// Deliver a message, at most once and in no guaranteed order. To this node it is passed from mailbox to mailbox.
    Send {
        /// The receiver.
        to: Address,
        /// Its envelope.
        header: Header,
        /// The message.
        message: Message,
    },
    /// Deliver a message to another role of this node.
    SendLocal {
        /// The receiver.
        to: RoleId,
        /// Its envelope.
        header: Header,
        /// The message.
        message: LocalMessage,
    },
    /// Return [`Event::TurnEnded`] after the events that are pending for this role now, so that it can batch its effects.
    EndTurn,
    /// Respond to a client.
    Reply {
        /// Which request.
        client: ClientRef,
        /// The response.
        response: Result<Response, Error>,
    },
    /// Make operations durable, then return [`Event::Persisted`]. The persists of all roles of a node with one priority are
    /// executed in the order of the requests; so an empty persist is a barrier after all earlier ones.
    Persist {
        /// Returned in the event; unique among those in flight of this role.
        token: u64,
        /// Relative to other pending persists.
        priority: Priority,
        /// Atomic: all of them or none.
        ops: Vec<JournalOp>,
    },
    /// Make rows readable immediately that this role derives from durable, committed entries of its log; return
    /// [`Event::Flushed`] when they survive a crash. A crash before that may lose them, whole effects only and the later
    /// ones first; then they are derived again.
    ///
    /// Every [`Read`](Effect::Read) and every [`FileTask::Save`] that is performed after it sees these rows, even in the
    /// same turn; one performed before may see them too. Each of them sees all rows of an effect or none.
    ApplyRows {
        /// Returned in the event; unique among those in flight of this role.
        token: u64,
        /// The rows.
        writes: Vec<StateWrite>,
    },
    /// Read durable state, then return [`Event::Read`]. The result of one query is a consistent view: from the beginning of
    /// its range to its last row (to the end, if there is no more) it has all rows of an [`ApplyRows`](Effect::ApplyRows)
    /// effect or none. Two queries may have different views.
    Read {
        /// Returned in the event; unique among those in flight of this role.
        token: u64,
        /// The query.
        query: Query,
    },
    /// Wake this role with [`Event::Timer`]; replaces a timer with the same id.
    SetTimer {
        /// Its id within the role.
        id: u64,
        /// When.
        at: Instant,
    },
    /// From now on exactly these role instances exist besides the node role (only the node role requests this).
    Reconcile(Vec<Spec>),
    /// Add an event to the cluster's timeline.
    Emit(TimelineEvent),
    /// A finished span of a sampled trace.
    Span(Box<Span>),
    /// A finished operation, for the metrics.
    Measure(Measurement),
    /// Execute a task on a file of rows, then return [`Event::Files`]. See [`quorate_core::files`].
    Files {
        /// Returned in the event; unique among those in flight of this role.
        token: u64,
        /// The task.
        task: FileTask,
    },
    /// Pass a client's request to another role of this node, as if it had arrived there.
    Relay {
        /// Which role.
        to: RoleId,
        /// The client's request.
        client: ClientRef,
        /// Deadline and trace.
        header: Header,
        /// The request.
        request: Request,
    },
    /// The current claim of this node's server of a Raft group, for the metrics.
    Group(Box<GroupClaim>),
}

/// Role instances that should exist. [`Spec::is_same`] compares the instances that specs imply.
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
    /// Whether both imply the same instances. Instances that a change of settings does not replace are sent the change
    /// ([`LocalMessage::Keyspaces`]).
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

/// The environment of a new role instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Surroundings {
    /// This node, and its data directory. (Its dots have other ids: see [`quorate_core::ids`].)
    pub replica: ReplicaId,
    /// The members, and the placement of keys.
    pub placement: Placement,
    /// The reachable nodes, including this one.
    pub alive: BTreeSet<NodeId>,
    /// The timing of its Raft groups: the control plane's, and those of keyspaces.
    pub raft: Timing,
    /// Deliberate mistakes, which tests must detect.
    pub bugs: Bugs,
}

impl Surroundings {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.replica.node()
    }
}
