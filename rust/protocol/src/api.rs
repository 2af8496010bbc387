//! The client protocol: what clients ask and nodes answer.
//!
//! A connection opens with [`ClientHello`], answered by [`ServerHello`]. After that it carries length-delimited
//! frames in both directions: a [`RequestFrame`] from the client, a [`ResponseFrame`] from the node with the same
//! id. Many requests may be in flight on one connection and answers come in any order. A deadline is relative, in
//! milliseconds; a node that cannot answer within it answers with a typed error, or drops work that nobody waits
//! for. The coding is postcard; variants are only ever appended.

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

/// The first bytes of every client connection, so that garbage is told from a client at once.
pub const CLIENT_MAGIC: [u8; 4] = *b"QRTc";
/// The oldest client protocol version this build speaks.
pub const CLIENT_VERSION_MIN: u16 = 1;
/// The newest client protocol version this build speaks.
pub const CLIENT_VERSION_MAX: u16 = 1;
/// The largest frame of the client protocol, in bytes: a key with a few siblings of the largest value.
pub const MAX_CLIENT_FRAME: usize = 32 << 20;
/// The most keys of a request for many of them ([`Request::PutMany`], [`Request::GetMany`]). Its bytes are bounded by
/// [`MAX_REQUEST_FRAME`](crate::frame::MAX_REQUEST_FRAME), those of its answer by [`MAX_MANY_BYTES`].
pub const MAX_MANY_KEYS: usize = 1_000;
/// About how many bytes of entries the answer to a [`Request::GetMany`] has; a single entry may be larger. A key whose entry
/// does not fit any longer has [`Error::LimitExceeded`] in its place, and is to be read by itself.
pub const MAX_MANY_BYTES: usize = 4 << 20;

/// What a client says first, after the magic bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The oldest version it speaks.
    pub version_min: u16,
    /// The newest version it speaks.
    pub version_max: u16,
    /// Optional features it understands, as bits; none are defined yet.
    pub features: u64,
    /// The cluster it expects; `None` takes any.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
}

/// What the node answers: who it is, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerHello {
    /// Go ahead.
    Welcome {
        /// The version both speak.
        version: u16,
        /// The features both understand.
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
    /// What it asks.
    pub request: Request,
}

/// An answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The id of the request.
    pub id: u64,
    /// The answer.
    pub response: Result<Response, Error>,
}

/// What a client can ask.
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
        /// What the client has seen of this very key; `None` supersedes whatever the coordinating replica sees.
        context: Option<Context>,
        /// `None` takes the keyspace's write level.
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
        /// `None` takes the keyspace's read level.
        level: Option<Level>,
    },
    /// One page of the live keys in key order.
    Scan {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// The first key, inclusive; `None` is the beginning.
        start: Option<Key>,
        /// The first key that is too far; `None` is the end.
        end: Option<Key>,
        /// Whether `start` itself is left out (a cursor: continue after the last key seen).
        after_start: bool,
        /// At most this many entries; nodes may return fewer with `next` set.
        limit: u32,
        /// `None` takes the keyspace's read level.
        level: Option<Level>,
    },
    /// Create a keyspace, or find it.
    CreateKeyspace(KeyspaceSettings),
    /// All keyspaces that the node knows.
    ListKeyspaces,
    /// The topology that the node knows.
    Topology,
    /// The node's own view of itself and its peers.
    Status,
    /// The node's timeline after this sequence number.
    Events {
        /// 0 for all that are still kept.
        after: u64,
    },
    /// The spans of a trace that this node still keeps.
    Spans {
        /// Which trace.
        trace_id: u128,
    },
    /// The node's metrics in the Prometheus text format.
    Metrics,
    /// Change settings of a keyspace.
    AlterKeyspace {
        /// Its name.
        name: String,
        /// What is to change.
        change: KeyspaceChange,
        /// The same for a retry as for the first attempt.
        write_id: WriteId,
    },
    /// Have a keyspace no more. Its data cannot be reached any longer, and is removed in the background.
    DropKeyspace {
        /// Its name.
        name: String,
        /// The same for a retry as for the first attempt.
        write_id: WriteId,
    },
    /// What this node's servers of Raft groups claim. Never forwarded: other nodes may claim otherwise.
    Groups,
    /// Have a shard execute a command.
    Propose {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// What to execute.
        command: Command,
        /// Makes a retry known as such; without it, a retry is executed again.
        session: Option<Stamp>,
    },
    /// Open a session with a shard.
    OpenSession {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// It expires after so many milliseconds of logged time without a command; at least 1.
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
    /// Read keys of one shard, all as of one moment.
    Read {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Which keys.
        keys: Vec<Key>,
        /// How much it must see.
        level: ReadLevel,
    },
    /// One page of a shard's keys in key order, as of one moment.
    ReadRange {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// The first key, inclusive; `None` is the beginning.
        start: Option<Key>,
        /// The first key that is too far; `None` is the end.
        end: Option<Key>,
        /// Whether `start` itself is left out.
        after_start: bool,
        /// At most this many; nodes may return fewer with `next` set.
        limit: u32,
        /// How much it must see.
        level: ReadLevel,
    },
    /// One page of a shard's appended entries, in the order of their ids.
    ReadLog {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which of its groups.
        group: GroupId,
        /// Only entries with greater ids.
        after: u64,
        /// At most this many are looked at.
        limit: u32,
        /// How much it must see.
        level: ReadLevel,
    },
    /// The faults of links that are in force on this node.
    Faults,
    /// Change them: what this node sends is spoiled from now on as they say. Only where the node's setting `allow_faults`
    /// is on.
    ChangeFaults(FaultChange),
    /// The topology that the node knows, and what the control plane is made of.
    Membership,
    /// Write many keys of a keyspace in quorum mode. Each write is one of its own, as if it had been asked for by a
    /// [`Request::Put`]: there is no all or nothing, and no order among them.
    PutMany {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// At most [`MAX_MANY_KEYS`].
        items: Vec<PutItem>,
        /// Of each write; `None` takes the keyspace's write level.
        level: Option<Level>,
        /// That of the first write. The others follow it in their order ([`WriteId::nth`]).
        write_id: WriteId,
    },
    /// Read many keys of a keyspace in quorum mode, each by itself, as if it had been asked for by a [`Request::Get`]: they
    /// are not read as of one moment.
    GetMany {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// At most [`MAX_MANY_KEYS`].
        keys: Vec<Key>,
        /// Of each read; `None` takes the keyspace's read level.
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
    /// What the client has seen of this very key; `None` supersedes whatever the coordinating replica sees.
    pub context: Option<Context>,
}

/// Which command of a session this is (see [`quorate_raft::sessions`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The session.
    pub session: u64,
    /// The client's number for the command: 1, 2, …; the same when it is retried.
    pub sequence: u64,
    /// The client has the answers to all commands up to this number.
    pub acknowledged: u64,
}

/// What a node can answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Response {
    /// To a put.
    Written(Written),
    /// To a get.
    Entry(Entry),
    /// To a scan.
    Page(Page),
    /// To a creation, an alteration or a drop: the keyspace as it is stored (or was), and whether it is new.
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
    /// To a change that has nothing else to tell.
    Done,
    /// To a `Propose`: it was executed, once.
    Committed(Committed),
    /// To an `OpenSession`.
    SessionOpened {
        /// The session.
        session: u64,
        /// Who leads the group.
        leader: NodeId,
    },
    /// To a `Read`: a record, or `None` where the key is absent, for each key in its order.
    Records {
        /// In the order of the keys.
        records: Vec<Option<Record>>,
        /// What was read.
        view: View,
    },
    /// To a `ReadRange`.
    RecordPage {
        /// In key order.
        entries: Vec<(Key, Record)>,
        /// Where to go on (`after_start: true`); `None` when the range is complete.
        next: Option<Key>,
        /// What was read.
        view: View,
    },
    /// To a `ReadLog`.
    LogPage {
        /// In the order of their ids.
        entries: Vec<LogEntry>,
        /// Where to go on (`after`); `None` at the end.
        next: Option<u64>,
        /// What was read.
        view: View,
    },
    /// To `Faults` and `ChangeFaults`: those in force now.
    Faults(Vec<LinkFault>),
    /// To `Membership`.
    Membership(Box<Membership>),
    /// To a `PutMany`: what became of each write, in the order of the items. An error that all of them have in common is the
    /// answer to the request instead.
    WrittenMany(Vec<Result<Written, Error>>),
    /// To a `GetMany`: what was found of each key, in their order. An error that all of them have in common is the answer to
    /// the request instead.
    Entries(Vec<Result<Entry, Error>>),
}

/// The cluster, as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The members and the ring.
    pub topology: Topology,
    /// Which version of the control plane's commands may be used: all members know it. 0 before the bootstrap.
    pub version: u16,
    /// The members with a vote in the control plane; none while this node does not know.
    pub voters: Vec<NodeId>,
    /// Those that only follow it.
    pub learners: Vec<NodeId>,
}

/// A command that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Committed {
    /// Where it stands in the group's log: the version of what it wrote, the id of what it appended.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Who leads the group and answered.
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
    /// In which term it was appended.
    pub term: u64,
    /// By the clock of the leader that proposed it.
    pub time: WallTime,
    /// Where it comes from.
    pub source: String,
    /// What it says.
    pub data: Bytes,
}

/// What a read of a shard has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The node whose state was read.
    pub node: NodeId,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last log entry that is in what was read.
    pub applied: u64,
    /// How old it may be, in microseconds, when the answer leaves that node: everything that was acknowledged longer ago is in
    /// it. 0 if it is linearizable, `None` if nothing is known (a stale read where no leader has been heard of).
    pub staleness_micros: Option<u64>,
}

/// What a server of a Raft group is, by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GroupState {
    /// It reads what its disk has.
    Recovering,
    /// It follows, or waits for someone to follow.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// Its disk does not have what it should have: it takes no part.
    Broken,
}

impl GroupState {
    /// In lower case, as people are shown it.
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
    /// What it is for: `control`, or a keyspace's name.
    pub name: String,
    /// Who claims it.
    pub node: NodeId,
    /// What it is.
    pub state: GroupState,
    /// The latest term that it has seen.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Microseconds since it heard from the leader; 0 if it leads, `None` if it knows none.
    pub heard_micros: Option<u64>,
    /// Everything up to here is committed, as far as it knows.
    pub commit: u64,
    /// Everything up to here has been applied here.
    pub applied: u64,
    /// The last entry of its log.
    pub last: u64,
    /// The last entry in its snapshot; 0 while there is none.
    pub snapshot: u64,
    /// The voters that count now.
    pub voters: Vec<NodeId>,
    /// Those that only follow.
    pub learners: Vec<NodeId>,
    /// If it leads: how many entries each other member is not known to have durably.
    pub lag: Vec<(NodeId, u64)>,
    /// The elections that it has called for since it started.
    pub elections: u64,
    /// Why it takes no part, if it is broken.
    pub problem: Option<String>,
    /// What it has done.
    pub activity: Activity,
}

/// A write that reached its level.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// The event that this write is.
    pub dot: Dot,
    /// What the key has seen after it: a context that replaces it.
    pub context: Context,
    /// By the coordinating replica's hybrid logical clock.
    pub timestamp: Timestamp,
    /// The replicas that had it durably when the answer left.
    pub acked: Vec<NodeId>,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// The level that was asked for.
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

/// A key as a read at some level saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// None when the key is absent or deleted; several when concurrent writes have not been reconciled.
    pub versions: Vec<Version>,
    /// What this read has seen: give it to a put that is to replace it. Empty when nothing was ever written.
    pub context: Context,
    /// The replicas that answered.
    pub answered: Vec<NodeId>,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// The level that was asked for.
    pub level: Level,
}

/// Part of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// Live keys in key order; tombstones are left out.
    pub entries: Vec<(Key, Entry)>,
    /// Where to go on (`after_start: true`); `None` when the scan is complete.
    pub next: Option<Key>,
}

/// A node's own view.
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
    /// Where its data is.
    pub data_directory: String,
    /// Size of its data, in bytes.
    pub stored_bytes: u64,
    /// Requests of clients in flight.
    pub in_flight: u64,
    /// How full its disk is.
    pub storage: StorageStatus,
}

/// How full a node's disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StorageStatus {
    /// Why writes are refused, and what to do about it; `None` while there is room.
    pub full: Option<String>,
    /// Bytes that can still be written to the file system of the data directory.
    pub available_bytes: u64,
    /// The parts of the store, each with a limit of its own.
    pub environments: Vec<EnvironmentStatus>,
}

/// How full a part of a node's store is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvironmentStatus {
    /// `journal` or `state`.
    pub name: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The most that can be in use, in bytes: for the state, the node's setting `map_size_bytes`.
    pub limit_bytes: u64,
}

/// How a node sees one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Whether the link is up.
    pub up: bool,
    /// Round trip of the last heartbeat in microseconds; 0 before the first.
    pub round_trip_micros: u64,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: u64,
}
