//! Telemetry of roles: spans, timeline events and measurements. Plain data; shells export it.

use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::level::Level;
use quorate_core::time::WallTime;
use quorate_raft::types::GroupId;
use rand_core::Rng as _;
use serde::{Deserialize, Serialize};

/// W3C trace context: which trace a message belongs to and which span caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// 128 bits, not zero.
    pub trace_id: u128,
    /// The span that caused this message, not zero.
    pub span_id: u64,
    /// Whether spans are recorded. Decided at the client.
    pub sampled: bool,
}

impl TraceContext {
    /// The `traceparent` header of this context.
    pub fn traceparent(&self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }

    /// Reads a `traceparent` header; `None` when it is malformed.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 || flags.len() != 2
        {
            return None;
        }
        let context = TraceContext {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }
}

/// A finished span.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The trace it belongs to.
    #[serde(with = "quorate_core::hex")]
    pub trace_id: u128,
    /// Its own id.
    pub span_id: u64,
    /// The span that caused it; 0 for a root.
    pub parent_id: u64,
    /// Its operation, for example `quorum.write`.
    pub name: String,
    /// The node; `None` for a client.
    pub node: Option<NodeId>,
    /// Its start, by the wall clock of that process.
    pub start: WallTime,
    /// Its end.
    pub end: WallTime,
    /// Names and values; the names follow OpenTelemetry's semantic conventions where these have one.
    pub attributes: Vec<(String, String)>,
    /// The error's name, when it failed.
    pub error: Option<String>,
}

impl Span {
    /// A finished span of `node`, caused by the span that `parent` names.
    pub fn child(
        parent: TraceContext,
        rng: &mut Rng,
        name: &str,
        node: NodeId,
        start: WallTime,
        end: WallTime,
    ) -> Self {
        Span {
            trace_id: parent.trace_id,
            span_id: span_id(rng),
            parent_id: parent.span_id,
            name: name.to_owned(),
            node: Some(node),
            start,
            end,
            attributes: Vec::new(),
            error: None,
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds the error's name, if there is one.
    pub fn failed(mut self, error: Option<&Error>) -> Self {
        self.error = error.map(|error| error.name().to_owned());
        self
    }
}

/// A random span id, never zero.
pub fn span_id(rng: &mut Rng) -> u64 {
    rng.next_u64().max(1)
}

/// A state change to report on the timeline. The shell adds the node and the time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimelineEvent {
    /// The node serves requests.
    NodeStarted,
    /// The node is stopping.
    NodeStopping,
    /// The link to this peer came up.
    PeerUp {
        /// The peer.
        peer: NodeId,
    },
    /// The link to this peer went down.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// The reason, as text.
        reason: String,
    },
    /// A peer was rejected: another cluster, another data directory, another version.
    PeerRefused {
        /// The node that it claims to be, if known.
        peer: Option<NodeId>,
        /// The reason, as text.
        reason: String,
    },
    /// A keyspace was created on this node.
    KeyspaceCreated {
        /// Its name.
        keyspace: String,
    },
    /// A read found stale replicas and sent them the merged state.
    ReadRepaired {
        /// Of which keyspace.
        keyspace: String,
        /// The stale replicas.
        replicas: Vec<NodeId>,
    },
    /// A remote clock is too far ahead; its timestamp was not adopted.
    ClockAhead {
        /// The node with that clock.
        node: NodeId,
        /// The offset, in milliseconds.
        offset_ms: u64,
    },
    /// The disk is full: writes are rejected.
    StorageFull,
    /// A stored record failed its checksum.
    CorruptRecord {
        /// The record, as text.
        record: String,
    },
    /// An injected fault was added or healed.
    Fault {
        /// The change, as text.
        description: String,
    },
    /// The disk has space again: writes are accepted.
    StorageRecovered,
    /// This server of a Raft group has no contact with a leader and starts an election.
    ElectionStarted {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
    },
    /// This server of a Raft group was elected.
    LeaderElected {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
    },
    /// This server of a Raft group follows another leader than before, or none.
    LeaderChanged {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
        /// The leader.
        leader: Option<NodeId>,
    },
    /// This server of a Raft group led and lost contact with a majority: it steps down.
    QuorumLost {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
    },
    /// Uncommitted entries that conflict with the leader's were truncated.
    LogCut {
        /// Of which group.
        group: GroupId,
        /// The first truncated entry.
        from: u64,
    },
    /// The log of a Raft group up to here is in a durable snapshot.
    SnapshotTaken {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// A snapshot of the leader was installed.
    SnapshotInstalled {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// A snapshot of the leader arrived damaged; it is requested again.
    SnapshotCorrupt {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// The disk has lost durable data of this server of a Raft group: it does not participate.
    GroupBroken {
        /// Of which group.
        group: GroupId,
        /// The reason, as text.
        reason: String,
    },
    /// This node knows of a later generation: members, their addresses or keyspaces have changed.
    TopologyChanged {
        /// In which generation.
        generation: u64,
    },
    /// Settings of a keyspace have changed.
    KeyspaceAltered {
        /// Its name.
        keyspace: String,
    },
    /// A keyspace was dropped.
    KeyspaceDropped {
        /// Its name.
        keyspace: String,
    },
    /// An invalid message of a peer for a Raft group was dropped. Reported once in ten seconds.
    MessageRejected {
        /// Of which group.
        group: GroupId,
        /// The sender.
        from: NodeId,
        /// The reason, as text.
        reason: String,
    },
    /// A Raft group's term is the maximum: this server starts no further election.
    TermsExhausted {
        /// Of which group.
        group: GroupId,
        /// The last term.
        term: u64,
    },
}

/// A timeline event with its node and time, as nodes store it and return it to clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Occurrence {
    /// Increases by one with each event of a node's boot.
    pub sequence: u64,
    /// Its time, by that node's wall clock.
    pub at: WallTime,
    /// The node.
    pub node: NodeId,
    /// The topology generation at that time.
    pub generation: u64,
    /// The event.
    pub event: TimelineEvent,
}

/// The operation of a [`Measurement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// A put.
    Put,
    /// A get.
    Get,
    /// A delete.
    Delete,
    /// One page of a scan.
    Scan,
    /// An appended entry.
    Append,
    /// Puts of many keys in one request.
    PutMany,
    /// Gets of many keys in one request.
    GetMany,
}

impl Operation {
    /// The metric's `op` label.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Delete => "delete",
            Operation::Scan => "scan",
            Operation::Append => "append",
            Operation::PutMany => "put_many",
            Operation::GetMany => "get_many",
        }
    }
}

/// The consistency of an operation: the level in a quorum keyspace, or the guarantee of a consensus keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// In quorum mode.
    Level(Level),
    /// In consensus mode: every write, and reads by default.
    Linearizable,
    /// In consensus mode: a read of its server's own state.
    Stale,
}

/// One finished operation of a coordinator, or of a consensus group's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Measurement {
    /// The operation.
    pub operation: Operation,
    /// Its consistency.
    pub consistency: Consistency,
    /// `ok`, or the error's name.
    pub outcome: String,
    /// From arrival to reply, in microseconds.
    pub micros: u64,
    /// The number of siblings in the response (0 for none).
    pub siblings: u32,
}
