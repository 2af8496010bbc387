//! The client protocol: requests of clients and responses of nodes.
//!
//! A connection opens with [`ClientHello`], answered by [`ServerHello`]. After that it carries length-delimited
//! frames in both directions: a [`RequestFrame`] from the client, a [`ResponseFrame`] from the node with the same
//! id. Many requests may be in flight on one connection, and responses arrive in any order. A deadline is relative, in
//! milliseconds; a node that cannot respond within it returns a typed error, or drops work whose deadline has passed.
//! The encoding is postcard; variants are only ever appended.

pub mod request;
#[cfg(test)]
pub(crate) mod request_samples;
mod response;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::faults::{FaultChange, LinkFault};
use crate::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings};
pub use quorate_raft::event::ReadLevel;
use quorate_raft::status::Activity;
use quorate_raft::types::GroupId;
use quorate_versions::{Context, Dot, WriteId};

use crate::shard_command::Command;
use crate::telemetry::{Occurrence, Span, TraceContext};
use crate::topology::Topology;

/// The first bytes of every client connection, so that garbage is rejected immediately.
pub const CLIENT_MAGIC: [u8; 4] = *b"QRTc";
/// The oldest client protocol version this build supports.
pub const CLIENT_VERSION_MIN: u16 = 1;
/// The newest client protocol version this build supports.
pub const CLIENT_VERSION_MAX: u16 = 1;
/// The largest frame of the client protocol, in bytes: a key with a few siblings of the largest value.
pub const MAX_CLIENT_FRAME: usize = 32 << 20;
/// The maximum number of keys of a request for many keys ([`Request::PutMany`], [`Request::GetMany`]). Its bytes are
/// bounded by [`MAX_REQUEST_FRAME`](crate::frame::MAX_REQUEST_FRAME), those of its response by [`MAX_MANY_BYTES`].
pub const MAX_MANY_KEYS: usize = 1_000;
/// About the maximum size of the entries in the response to a [`Request::GetMany`], in bytes; a single entry may be larger.
/// A key whose entry does not fit has [`Error::LimitExceeded`] in its place; read it separately.
pub const MAX_MANY_BYTES: usize = 4 << 20;

/// The first message of a client, after the magic bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The oldest version it supports.
    pub version_min: u16,
    /// The newest version it supports.
    pub version_max: u16,
    /// Optional features it supports, as bits; none are defined yet.
    pub features: u64,
    /// The cluster it expects; `None` accepts any.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
}

/// The node's response: its identity, or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerHello {
    /// The connection is accepted.
    Welcome {
        /// The negotiated version.
        version: u16,
        /// The negotiated features.
        features: u64,
        /// The cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
        /// Its boot.
        boot: BootId,
    },
    /// The connection closes after this.
    Refused(Error),
}

/// A request on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client, unique among its requests in flight on this connection.
    pub id: u64,
    /// Milliseconds left when it was sent.
    pub deadline_ms: u32,
    /// The caller's trace, if any.
    pub trace: Option<TraceContext>,
    /// The request.
    pub request: Request,
}

/// A response on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The id of the request.
    pub id: u64,
    /// The response.
    pub response: Result<Response, Error>,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// Write a value, or a tombstone where `value` is `None`.
    Put {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which key.
        key: Key,
        /// The value; `None` deletes.
        value: Option<Bytes>,
        /// The versions of this key that the client has read; `None` supersedes all that the coordinating replica has.
        context: Option<Context>,
        /// `None` uses the keyspace's write level.
        level: Option<Level>,
        /// The same for a retry as for the first attempt.
        write_id: WriteId,
    },
    /// Read a key.
    Get {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which key.
        key: Key,
        /// `None` uses the keyspace's read level.
        level: Option<Level>,
    },
    /// Read one page of the live keys in key order.
    Scan {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Inclusive lower bound; `None` is the beginning.
        start: Option<Key>,
        /// Exclusive upper bound; `None` is the end.
        end: Option<Key>,
        /// Whether `start` itself is excluded (a cursor: continue after the last key returned).
        after_start: bool,
        /// At most this many entries; nodes may return fewer with `next` set.
        limit: u32,
        /// `None` uses the keyspace's read level.
        level: Option<Level>,
    },
    /// Create a keyspace, or return the existing one.
    CreateKeyspace(KeyspaceSettings),
    /// Return all keyspaces that the node knows.
    ListKeyspaces,
    /// Return the topology that the node knows.
    Topology,
    /// Return the node's view of itself and its peers.
    Status,
    /// Return the node's timeline after this sequence number.
    Events {
        /// 0 for all that are still kept.
        after: u64,
    },
    /// Return the spans of a trace that this node still keeps.
    Spans {
        /// Which trace.
        trace_id: u128,
    },
    /// Return the node's metrics in the Prometheus text format.
    Metrics,
    /// Change settings of a keyspace.
    AlterKeyspace {
        /// Its name.
        name: String,
        /// The changed settings.
        change: KeyspaceChange,
        /// The same for a retry as for the first attempt.
        write_id: WriteId,
    },
    /// Drop a keyspace. Its data is inaccessible from then on, and is removed in the background.
    DropKeyspace {
        /// Its name.
        name: String,
        /// The same for a retry as for the first attempt.
        write_id: WriteId,
    },
    /// Return the claims of this node's servers of Raft groups. Never forwarded: other nodes may claim otherwise.
    Groups,
    /// Propose a command to a shard.
    Propose {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// The command.
        command: Command,
        /// Identifies a retry; without it, a retry is executed again.
        session: Option<Stamp>,
    },
    /// Open a session with a shard.
    OpenSession {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// It expires after this many milliseconds of logged time without a command; at least 1.
        idle_ms: u64,
    },
    /// End a session with a shard.
    CloseSession {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Which session.
        session: u64,
    },
    /// Read keys of one shard, from one consistent view.
    Read {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Which keys.
        keys: Vec<Key>,
        /// The consistency of the read.
        level: ReadLevel,
    },
    /// Read one page of a shard's keys in key order, from one consistent view.
    ReadRange {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Inclusive lower bound; `None` is the beginning.
        start: Option<Key>,
        /// Exclusive upper bound; `None` is the end.
        end: Option<Key>,
        /// Whether `start` itself is excluded.
        after_start: bool,
        /// At most this many; nodes may return fewer with `next` set.
        limit: u32,
        /// The consistency of the read.
        level: ReadLevel,
    },
    /// Read one page of a shard's appended entries, in the order of their ids.
    ReadLog {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Only entries with greater ids.
        after: u64,
        /// At most this many are examined.
        limit: u32,
        /// The consistency of the read.
        level: ReadLevel,
    },
    /// Return the link faults that are active on this node.
    Faults,
    /// Change the link faults that this node injects into its outgoing messages. Requires the node's setting
    /// `allow_faults`.
    ChangeFaults(FaultChange),
    /// Return the topology that the node knows, and the members of the control plane.
    Membership,
    /// Write many keys of a keyspace in quorum mode. Each write is independent, like a [`Request::Put`]: neither atomic
    /// with the others nor ordered among them.
    PutMany {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// At most [`MAX_MANY_KEYS`].
        items: Vec<PutItem>,
        /// Of each write; `None` uses the keyspace's write level.
        level: Option<Level>,
        /// The id of the first write. The others follow it in order ([`WriteId::nth`]).
        write_id: WriteId,
    },
    /// Read many keys of a keyspace in quorum mode. Each read is independent, like a [`Request::Get`]: together they are not
    /// a consistent view.
    GetMany {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// At most [`MAX_MANY_KEYS`].
        keys: Vec<Key>,
        /// Of each read; `None` uses the keyspace's read level.
        level: Option<Level>,
    },
}

/// One write of a [`Request::PutMany`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PutItem {
    /// Which key.
    pub key: Key,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// The versions of this key that the client has read; `None` supersedes all that the coordinating replica has.
    pub context: Option<Context>,
}

/// The position of a command in its session (see [`quorate_raft::sessions`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The session.
    pub session: u64,
    /// The client's number for the command: 1, 2, …; the same when it is retried.
    pub sequence: u64,
    /// The client has the responses to all commands up to this number.
    pub acknowledged: u64,
}

/// A response of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Response {
    /// To a put.
    Written(Written),
    /// To a get.
    Entry(Entry),
    /// To a scan.
    Page(Page),
    /// To a create, alter or drop: the keyspace as it is stored (or was), and whether it is new.
    Keyspace {
        /// With its id.
        keyspace: Keyspace,
        /// False when it existed already.
        created: bool,
    },
    /// To `ListKeyspaces`.
    Keyspaces(Vec<Keyspace>),
    /// To `Topology`.
    Topology(Box<Topology>),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Events`.
    Events(Vec<Occurrence>),
    /// To `Spans`.
    Spans(Vec<Span>),
    /// To `Metrics`.
    Metrics(String),
    /// To `Groups`.
    Groups(Vec<GroupClaim>),
    /// To a change without other results.
    Done,
    /// To a `Propose`: it was executed, once.
    Committed(Committed),
    /// To an `OpenSession`.
    SessionOpened {
        /// The session.
        session: u64,
        /// The leader of the group.
        leader: NodeId,
    },
    /// To a `Read`: for each key, in order, its record, or `None` if the key is absent.
    Records {
        /// In the order of the keys.
        records: Vec<Option<Record>>,
        /// The state that was read.
        view: View,
    },
    /// To a `ReadRange`.
    RecordPage {
        /// In key order.
        entries: Vec<(Key, Record)>,
        /// Where to continue (`after_start: true`); `None` when the range is complete.
        next: Option<Key>,
        /// The state that was read.
        view: View,
    },
    /// To a `ReadLog`.
    LogPage {
        /// In the order of their ids.
        entries: Vec<LogEntry>,
        /// Where to continue (`after`); `None` at the end.
        next: Option<u64>,
        /// The state that was read.
        view: View,
    },
    /// To `Faults` and `ChangeFaults`: the active faults.
    Faults(Vec<LinkFault>),
    /// To `Membership`.
    Membership(Box<Membership>),
    /// To a `PutMany`: the result of each write, in the order of the items. If all of them fail with the same error, the
    /// response is that error instead.
    WrittenMany(Vec<Result<Written, Error>>),
    /// To a `GetMany`: the result for each key, in order. If all of them fail with the same error, the response is that
    /// error instead.
    Entries(Vec<Result<Entry, Error>>),
}

/// The cluster, as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The members and the ring.
    pub topology: Topology,
    /// The version of the control plane's commands that all members support. 0 before the bootstrap.
    pub version: u16,
    /// The members with a vote in the control plane; empty while unknown.
    pub voters: Vec<NodeId>,
    /// The members without a vote.
    pub learners: Vec<NodeId>,
}

/// A command that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Committed {
    /// Its index in the group's log: the version of the keys that it wrote, the id of the entry that it appended.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The leader of the group, which responded.
    pub leader: NodeId,
}

/// A record of a consensus keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The log index of the command that wrote it.
    pub version: u64,
    /// By the clock of the leader that proposed it.
    pub time: WallTime,
    /// The value.
    pub value: Bytes,
}

/// An entry of a shard's log of entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its log index: rises with each entry.
    pub id: u64,
    /// The term in which it was appended.
    pub term: u64,
    /// By the clock of the leader that proposed it.
    pub time: WallTime,
    /// Its source.
    pub source: String,
    /// Its data.
    pub data: Bytes,
}

/// The state that a read of a shard has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The node whose state was read.
    pub node: NodeId,
    /// The leader, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last log entry that is applied to that state.
    pub applied: u64,
    /// The maximum age of that state, in microseconds, when the response leaves the node: it includes everything that was
    /// acknowledged before. 0 if it is linearizable, `None` if unknown (a stale read without a known leader).
    pub staleness_micros: Option<u64>,
}

/// The state of a server of a Raft group, as it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GroupState {
    /// It reads its disk.
    Recovering,
    /// It follows a leader, or waits for one.
    Follower,
    /// It requests votes.
    Candidate,
    /// It leads.
    Leader,
    /// Its disk has lost durable data: it does not participate.
    Broken,
}

impl GroupState {
    /// Its display name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Recovering => "recovering",
            GroupState::Follower => "follower",
            GroupState::Candidate => "candidate",
            GroupState::Leader => "leader",
            GroupState::Broken => "broken",
        }
    }
}

/// A node's own claim about one Raft group that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupClaim {
    /// Which group.
    pub group: GroupId,
    /// `control`, or a keyspace's name.
    pub name: String,
    /// The node that claims it.
    pub node: NodeId,
    /// Its state.
    pub state: GroupState,
    /// The latest term that it has seen.
    pub term: u64,
    /// The leader, as far as it knows.
    pub leader: Option<NodeId>,
    /// Microseconds since its last contact with the leader; 0 if it leads, `None` if it knows none.
    pub heard_micros: Option<u64>,
    /// The last entry that it knows to be committed.
    pub commit: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The last entry in its snapshot; 0 without a snapshot.
    pub snapshot: u64,
    /// The voters of its current configuration.
    pub voters: Vec<NodeId>,
    /// The learners of its current configuration.
    pub learners: Vec<NodeId>,
    /// Of a leader: the number of entries that each other member is not known to have durably.
    pub lag: Vec<(NodeId, u64)>,
    /// The number of elections that it has started since its start.
    pub elections: u64,
    /// Why it does not participate, if it is broken.
    pub problem: Option<String>,
    /// Its counters.
    pub activity: Activity,
}

/// A write that reached its level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// The event that this write is.
    pub dot: Dot,
    /// The key's versions after this write: a put with this context replaces it.
    pub context: Context,
    /// By the coordinating replica's hybrid logical clock.
    pub timestamp: Timestamp,
    /// The replicas that had it durably when the response was sent.
    pub acked: Vec<NodeId>,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// The requested level.
    pub level: Level,
}

/// One of a key's values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The write that made it.
    pub dot: Dot,
    /// Never a tombstone.
    pub value: Bytes,
    /// By the hybrid logical clock of the replica that coordinated that write.
    pub timestamp: Timestamp,
}

/// The result of a read of a key at some level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// None when the key is absent or deleted; several when concurrent writes have not been reconciled.
    pub versions: Vec<Version>,
    /// The versions that this read has seen; a put with this context replaces them. Empty when nothing was ever written.
    pub context: Context,
    /// The replicas that responded.
    pub answered: Vec<NodeId>,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// The requested level.
    pub level: Level,
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// Live keys in key order, without tombstones.
    pub entries: Vec<(Key, Entry)>,
    /// Where to continue (`after_start: true`); `None` when the scan is complete.
    pub next: Option<Key>,
}

/// A node's view of itself and its peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The program's version.
    pub version: String,
    /// The topology generation it is in.
    pub generation: u64,
    /// Its peers.
    pub peers: Vec<PeerStatus>,
    /// The names of its keyspaces.
    pub keyspaces: Vec<String>,
    /// The path of its data directory.
    pub data_directory: String,
    /// Size of its data, in bytes.
    pub stored_bytes: u64,
    /// Requests of clients in flight.
    pub in_flight: u64,
    /// Its disk usage.
    pub storage: StorageStatus,
}

/// The disk usage of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StorageStatus {
    /// Why writes are rejected, and the remedy; `None` while there is space.
    pub full: Option<String>,
    /// Bytes that can still be written to the file system of the data directory.
    pub available_bytes: u64,
    /// The parts of the store, each with its own limit.
    pub environments: Vec<EnvironmentStatus>,
}

/// The disk usage of a part of a node's store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvironmentStatus {
    /// `journal` or `state`.
    pub name: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The maximum of bytes in use: for the state, the node's setting `map_size_bytes`.
    pub limit_bytes: u64,
}

/// A node's view of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Whether the link is up.
    pub up: bool,
    /// Round trip of the last heartbeat in microseconds; 0 before the first.
    pub round_trip_micros: u64,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: u64,
}
