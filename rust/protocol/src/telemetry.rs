//! What roles say about themselves: spans, timeline events and measurements. Plain data; shells export it.

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
    /// What was done, for example `quorum.write`.
    pub name: String,
    /// Where; `None` for a client.
    pub node: Option<NodeId>,
    /// When it began, by the wall clock of that process.
    pub start: WallTime,
    /// When it ended.
    pub end: WallTime,
    /// Names and values, OpenTelemetry's semantic conventions where they have a name for it.
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

    /// With an attribute more.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.push((name.to_owned(), value.to_string()));
        self
    }

    /// With the error's name, if there is one.
    pub fn failed(mut self, error: Option<&Error>) -> Self {
        self.error = error.map(|error| error.name().to_owned());
        self
    }
}

/// A random span id, never zero.
pub fn span_id(rng: &mut Rng) -> u64 {
    rng.next_u64().max(1)
}

/// A state change that a person would want on a timeline. Where and when are added by the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimelineEvent {
    /// The node serves requests.
    NodeStarted,
    /// The node was asked to stop.
    NodeStopping,
    /// A link to this peer was established.
    PeerUp {
        /// Which.
        peer: NodeId,
    },
    /// The link to this peer was lost.
    PeerDown {
        /// Which.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A peer was refused: another cluster, another data directory, another version.
    PeerRefused {
        /// Which, as far as it said.
        peer: Option<NodeId>,
        /// Why, in words.
        reason: String,
    },
    /// A keyspace exists now on this node.
    KeyspaceCreated {
        /// Its name.
        keyspace: String,
    },
    /// A read found stale replicas and sent them what they lacked.
    ReadRepaired {
        /// Of which keyspace.
        keyspace: String,
        /// Who was stale.
        replicas: Vec<NodeId>,
    },
    /// A remote clock is too far ahead; its timestamp was not adopted.
    ClockAhead {
        /// Whose.
        node: NodeId,
        /// By how much, in milliseconds.
        offset_ms: u64,
    },
    /// The disk is full: writes are refused.
    StorageFull,
    /// A stored record failed its checksum.
    CorruptRecord {
        /// Which, in words.
        record: String,
    },
    /// A message fault rule of the laboratory was set or cleared.
    Fault {
        /// What, in words.
        description: String,
    },
    /// The disk was full and has room: writes are taken again.
    StorageRecovered,
    /// This server of a Raft group has heard from no leader and calls for an election.
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
    /// This server of a Raft group follows another than before, or nobody.
    LeaderChanged {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
        /// Whom.
        leader: Option<NodeId>,
    },
    /// This server of a Raft group led and has not heard from a majority: it leads no more.
    QuorumLost {
        /// Of which group.
        group: GroupId,
        /// In which term.
        term: u64,
    },
    /// Entries that were not committed gave way to the leader's.
    LogCut {
        /// Of which group.
        group: GroupId,
        /// The first that went.
        from: u64,
    },
    /// The log of a Raft group up to here is in a durable snapshot.
    SnapshotTaken {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// A snapshot came from the leader and is the state now.
    SnapshotInstalled {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// A snapshot came from the leader damaged; it is asked for again.
    SnapshotCorrupt {
        /// Of which group.
        group: GroupId,
        /// The last entry in it.
        index: u64,
    },
    /// The disk does not have what this server of a Raft group has promised: it takes no part.
    GroupBroken {
        /// Of which group.
        group: GroupId,
        /// Why, in words.
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
    /// A keyspace is gone.
    KeyspaceDropped {
        /// Its name.
        keyspace: String,
    },
    /// A message of a peer said what no server of the Raft group can say, and was dropped. Reported for one message in
    /// ten seconds.
    MessageRejected {
        /// Of which group.
        group: GroupId,
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it, in words.
        reason: String,
    },
    /// A Raft group's term is the last number: this server calls for no election any more.
    TermsExhausted {
        /// Of which group.
        group: GroupId,
        /// The last term.
        term: u64,
    },
}

/// A timeline event with its place and time, as nodes keep and clients get it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Occurrence {
    /// Rises by one with each event of a node's boot.
    pub sequence: u64,
    /// When, by that node's wall clock.
    pub at: WallTime,
    /// Where.
    pub node: NodeId,
    /// The topology generation it happened in.
    pub generation: u64,
    /// What.
    pub event: TimelineEvent,
}

/// What kind of operation a [`Measurement`] is about.
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
    /// Puts of many keys, asked for together.
    PutMany,
    /// Gets of many keys, asked for together.
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

/// What an operation promises: the level that a quorum keyspace was asked for, or what a consensus keyspace gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// In quorum mode.
    Level(Level),
    /// In consensus mode: every write, and reads unless they say otherwise.
    Linearizable,
    /// In consensus mode: a read of whatever its server has.
    Stale,
}

/// One finished operation of a coordinator, or of a consensus group's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Measurement {
    /// What was done.
    pub operation: Operation,
    /// What it promised.
    pub consistency: Consistency,
    /// `ok`, or the error's name.
    pub outcome: String,
    /// From arrival to reply, in microseconds.
    pub micros: u64,
    /// How many siblings the answer had (0 for none).
    pub siblings: u32,
}
