//! The actions that a server requests from its host, and the notices that it reports.

use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority};
use quorate_core::time::Instant;

use crate::entry::Entry;
use crate::message::Message;
use crate::snapshot::SnapshotMeta;
use crate::types::{LogIndex, LogPosition, Term};
use crate::validation::Implausible;

/// An action that a server requests from its host. The host performs actions in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Deliver a message, at most once and in no promised order.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Make durable, then call [`Raft::persisted`](super::Raft::persisted) (or
    /// [`persist_refused`](super::Raft::persist_refused)). Requests of one priority are performed in order.
    Persist {
        /// Always even.
        token: u64,
        /// The priority relative to other pending requests.
        priority: Priority,
        /// All are written, or none.
        ops: Vec<JournalOp>,
    },
    /// Call [`Raft::timer`](super::Raft::timer) at this time; replaces the previous timer.
    SetTimer {
        /// When the timer fires.
        at: Instant,
    },
    /// These entries are committed: apply each once, in order. They follow the last applied ones, or the
    /// restored snapshot, without a gap.
    Apply(Vec<Entry>),
    /// Take a snapshot of the state machine exactly as it is now, after the entries up to `position` have
    /// been applied. When its bytes are durable, call [`Raft::snapshot_taken`](super::Raft::snapshot_taken),
    /// or [`snapshot_failed`](super::Raft::snapshot_failed) on failure.
    TakeSnapshot {
        /// The last entry that it includes.
        position: LogPosition,
    },
    /// Read a chunk of the current snapshot, then call [`Raft::chunk_read`](super::Raft::chunk_read).
    ReadChunk {
        /// The receiver; returned with the chunk.
        to: NodeId,
        /// The snapshot's position.
        position: LogPosition,
        /// The offset of the first byte.
        offset: u64,
        /// The number of bytes; fewer at the end.
        length: u32,
    },
    /// Store the next chunk of a snapshot that is being received. Offset 0 starts a snapshot and discards an
    /// unfinished one.
    StoreChunk {
        /// The snapshot.
        meta: SnapshotMeta,
        /// The offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: bytes::Bytes,
    },
    /// All chunks of this snapshot are stored. Verify the checksum of the whole, make it durable, then call
    /// [`Raft::snapshot_received`](super::Raft::snapshot_received).
    InstallSnapshot(SnapshotMeta),
    /// Replace the state machine with the snapshot that was received.
    Restore {
        /// The last entry that it includes; the next entry to apply follows it.
        position: LogPosition,
    },
    /// The snapshot stored under this handle is now durably the group's snapshot: older ones can be deleted.
    SnapshotDurable {
        /// The host's handle of the snapshot.
        handle: u64,
    },
    /// These reads can be answered once everything up to `index` is applied.
    ReadReady {
        /// The reads.
        ids: Vec<u64>,
        /// The read index.
        index: LogIndex,
    },
    /// These reads cannot be answered here. They have had no effect.
    ReadFailed {
        /// The reads.
        ids: Vec<u64>,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// An event for the timeline.
    Notice(Notice),
}

/// An event for the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This server starts an election: a pre-vote (`pre`) or a vote.
    Campaigning {
        /// The term; for a pre-vote, the current one.
        term: Term,
        /// Whether it is a pre-vote.
        pre: bool,
    },
    /// This server became leader.
    Leading {
        /// The term.
        term: Term,
    },
    /// This server follows another leader than before, or none.
    Following {
        /// The term.
        term: Term,
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// This server led and has lost contact with its quorum.
    QuorumLost {
        /// The term.
        term: Term,
    },
    /// Uncommitted entries from here on conflicted with the leader's and were truncated.
    LogTruncated {
        /// The first truncated entry.
        from: LogIndex,
    },
    /// The log up to here is in a durable snapshot.
    SnapshotTaken {
        /// The last entry in the snapshot.
        position: LogPosition,
    },
    /// A snapshot from the leader was installed.
    SnapshotInstalled {
        /// The last entry in the snapshot.
        position: LogPosition,
    },
    /// A snapshot from the leader failed its checksum; it is requested again.
    SnapshotCorrupt {
        /// The last entry in the snapshot.
        position: LogPosition,
    },
    /// The disk is full: this server acknowledges nothing until there is space.
    StorageFull,
    /// A message made a claim that no server of this group can make; it was dropped.
    MessageRejected {
        /// The sender.
        from: NodeId,
        /// The reason.
        reason: Implausible,
    },
    /// There is no later term: this server starts no more elections.
    TermsExhausted {
        /// The last term.
        term: Term,
    },
}
