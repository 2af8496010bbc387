//! What a server asks its host for, and what it tells it.

use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority};
use quorate_core::time::Instant;

use crate::entry::Entry;
use crate::message::Message;
use crate::snapshot::SnapshotMeta;
use crate::types::{LogIndex, LogPosition, Term};
use crate::validation::Implausible;

/// What a server asks its host for. The host performs them in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Deliver a message, at most once and in no promised order.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Make durable, then call [`Raft::persisted`](super::Raft::persisted) (or
    /// [`persist_refused`](super::Raft::persist_refused)). Requests of one priority are performed in order.
    Persist {
        /// Even.
        token: u64,
        /// Against the other requests that wait.
        priority: Priority,
        /// All or none.
        ops: Vec<JournalOp>,
    },
    /// Call [`Raft::timer`](super::Raft::timer) then; replaces the earlier request.
    SetTimer {
        /// When.
        at: Instant,
    },
    /// These entries are committed: apply them, in order, each once. Follows without a gap on the last ones,
    /// or on the snapshot that was restored.
    Apply(Vec<Entry>),
    /// A snapshot is due of the state machine exactly as it is now, after the entries up to `position` have
    /// been applied. When its bytes are durable, call [`Raft::snapshot_taken`](super::Raft::snapshot_taken),
    /// or [`snapshot_failed`](super::Raft::snapshot_failed).
    TakeSnapshot {
        /// The last entry that is in it.
        position: LogPosition,
    },
    /// Read a part of the current snapshot, then call [`Raft::chunk_read`](super::Raft::chunk_read).
    ReadChunk {
        /// For whom; returned in the answer.
        to: NodeId,
        /// Which snapshot.
        position: LogPosition,
        /// Where in it.
        offset: u64,
        /// How many bytes, or to the end.
        length: u32,
    },
    /// Put aside a part of a snapshot that is being received, the next one after those before. With offset 0
    /// it is the first, and an unfinished other one is abandoned.
    StoreChunk {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where in it.
        offset: u64,
        /// The bytes.
        bytes: bytes::Bytes,
    },
    /// All chunks of this snapshot are there. Check the sum over the whole; make it durable; then call
    /// [`Raft::snapshot_received`](super::Raft::snapshot_received).
    InstallSnapshot(SnapshotMeta),
    /// Put the snapshot that was received in the place of the state machine.
    Restore {
        /// The last entry that is in it: what is applied next comes after it.
        position: LogPosition,
    },
    /// The snapshot that is kept under this handle is the group's now, durably: older ones may go.
    SnapshotKept {
        /// What the host called it.
        handle: u64,
    },
    /// Reads that were asked for may be answered once everything up to `index` is applied.
    ReadReady {
        /// Which reads.
        ids: Vec<u64>,
        /// Up to here.
        index: LogIndex,
    },
    /// These reads cannot be answered here and have had no effect.
    ReadFailed {
        /// Which reads.
        ids: Vec<u64>,
        /// Who leads, as far as known.
        leader: Option<NodeId>,
    },
    /// Something that belongs on a timeline.
    Notice(Notice),
}

/// Something that belongs on a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This server asks for an election: the others whether they would vote for it, or, not `pre`, for their
    /// votes.
    Campaigning {
        /// In which term (before it begins, if `pre`).
        term: Term,
        /// Whether it only asks.
        pre: bool,
    },
    /// This server leads.
    Leading {
        /// In which term.
        term: Term,
    },
    /// This server follows another than before, or nobody.
    Following {
        /// In which term.
        term: Term,
        /// Whom, if known.
        leader: Option<NodeId>,
    },
    /// This server led and has not heard from a quorum.
    QuorumLost {
        /// In which term.
        term: Term,
    },
    /// Entries from here on were not committed and gave way to the leader's.
    Cut {
        /// The first that went.
        from: LogIndex,
    },
    /// The log up to here is in a durable snapshot.
    SnapshotTaken {
        /// The last entry in it.
        position: LogPosition,
    },
    /// A snapshot came from the leader and is the state now.
    SnapshotInstalled {
        /// The last entry in it.
        position: LogPosition,
    },
    /// A snapshot came from the leader but its sum is wrong; it is asked for again.
    SnapshotCorrupt {
        /// The last entry in it.
        position: LogPosition,
    },
    /// The disk is full: this server acknowledges nothing until there is space.
    StorageFull,
    /// A message said what no server of this group can say; nothing was done about it.
    MessageRejected {
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it.
        reason: Implausible,
    },
    /// There is no later term: this server calls for no election any more.
    TermsExhausted {
        /// The last one.
        term: Term,
    },
}
