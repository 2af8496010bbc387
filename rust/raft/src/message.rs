//! The messages between the servers of a group. Each variant is a promise: who sends it, when, and what the
//! receiver may conclude.
//!
//! Messages may be lost, duplicated and reordered. Every message carries its sender's term: a server that
//! sees a later term adopts it and becomes a follower; a server that receives an earlier one answers
//! [`Body::Outdated`] and does nothing else.
//!
//! **All but the pre-votes are sent only once the sender's term, and its vote in it, are durable.** That is
//! what lets a receiver count them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::snapshot::SnapshotMeta;
use crate::types::{LogIndex, LogPosition, Term};

/// A message from one server of a group to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The sender's current term.
    pub term: Term,
    /// The content.
    pub body: Body,
}

/// The content of a message. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me in the term after mine? Sent by a server that has not heard from a leader.
    /// Changes nothing at either end; without a majority the sender does not disturb the group with a new
    /// term.
    PreVote {
        /// The sender's last entry.
        last: LogPosition,
    },
    /// The answer to `PreVote`: a prediction, not a promise.
    PreVoteAnswer {
        /// Whether the sender would vote.
        granted: bool,
    },
    /// Vote for me in this term. Sent by a candidate, which has voted for itself durably.
    Vote {
        /// The sender's last entry.
        last: LogPosition,
    },
    /// The answer to `Vote`. If granted, the sender has given its only vote of this term to the receiver,
    /// durably, and has no entry that is more up to date than the candidate's last one.
    VoteAnswer {
        /// Whether the vote was granted.
        granted: bool,
    },
    /// From the leader of this term: `entries` follow `previous` in my log. A receiver that has `previous`
    /// has the leader's whole log up to there (Log Matching), and replaces what conflicts with the entries.
    Append {
        /// The entry before the first of `entries`.
        previous: LogPosition,
        /// The commit index; it covers what of the receiver's log is known to match.
        commit: LogIndex,
        /// In order, without gaps; may be empty.
        entries: Vec<Entry>,
    },
    /// The answer to `Append`: the sender has the leader's log up to here *durably*, and votes only for
    /// candidates that have what is committed of it.
    Accepted {
        /// The last durable index.
        through: LogIndex,
    },
    /// The answer to an `Append` whose `previous` the sender does not have.
    Rejected {
        /// The index of that `previous`.
        previous: LogIndex,
        /// Where the leader should look next: the first entry of the term that the sender has at `previous`,
        /// or the index after its last entry (with term 0) when its log is too short.
        conflict: LogPosition,
    },
    /// From the leader of this term: I am alive. Never queued behind bulk data, so that silence is
    /// significant.
    Heartbeat {
        /// As in `Append`.
        commit: LogIndex,
        /// Rises with each round of heartbeats that reads wait for.
        round: u64,
    },
    /// The answer to `Heartbeat`: when it arrived, the sender knew of no later term. Also repeats the content
    /// of an `Accepted` that was lost.
    HeartbeatAck {
        /// The heartbeat's round.
        round: u64,
        /// The sender's log is known to match the leader's up to here, durable or not.
        received: LogIndex,
        /// And has it durably up to here.
        durable: LogIndex,
    },
    /// From a follower with pending linearizable reads: up to which index must I apply the log, so that they
    /// see everything acknowledged before you received this?
    ReadIndex {
        /// The sender's number for the request.
        request: u64,
    },
    /// The answer to `ReadIndex`, after a round of heartbeats has confirmed that the sender still led.
    ReadIndexAnswer {
        /// The number of the request.
        request: u64,
        /// The read index.
        index: LogIndex,
    },
    /// From the leader: a chunk of a snapshot that covers the log up to its position, which the receiver
    /// lacks and the leader has compacted. Chunks of one snapshot are the same whichever server sends them: a
    /// transfer can resume with another leader.
    Snapshot {
        /// The whole snapshot.
        meta: Box<SnapshotMeta>,
        /// The offset of the bytes.
        offset: u64,
        /// At least one byte.
        bytes: Bytes,
    },
    /// The answer to `Snapshot`: the sender has all bytes before `offset`.
    SnapshotReceived {
        /// The position of the snapshot.
        position: LogPosition,
        /// The first missing byte.
        offset: u64,
    },
    /// Your term is over: mine is later. The receiver adopts it and becomes a follower.
    Outdated,
    /// From a follower: report your commit index with your next round of heartbeats. No request waits for it.
    Probe {
        /// The sender's number for the probe.
        probe: u64,
    },
    /// The answer to `Probe`, after a quorum has answered a round that began after the sender received it:
    /// everything acknowledged before the probe was sent is in the log up to `index`.
    ProbeAnswer {
        /// The number of the probe.
        probe: u64,
        /// The commit index.
        index: LogIndex,
    },
}

impl Body {
    /// Whether only the leader of the message's term sends this.
    pub fn is_leaders(&self) -> bool {
        match self {
            Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Snapshot { .. }
            | Body::ReadIndexAnswer { .. }
            | Body::ProbeAnswer { .. } => true,
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::HeartbeatAck { .. }
            | Body::ReadIndex { .. }
            | Body::SnapshotReceived { .. }
            | Body::Outdated
            | Body::Probe { .. } => false,
        }
    }

    /// Whether it may be sent before the sender's term is durable: it promises nothing.
    pub(super) fn promises_nothing(&self) -> bool {
        match self {
            Body::PreVote { .. } | Body::PreVoteAnswer { .. } => true,
            Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Append { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatAck { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. }
            | Body::Snapshot { .. }
            | Body::SnapshotReceived { .. }
            | Body::Outdated
            | Body::Probe { .. }
            | Body::ProbeAnswer { .. } => false,
        }
    }

    /// Approximate size in memory beyond the value itself; at least the size on the wire.
    pub fn size(&self) -> usize {
        match self {
            Body::Append { entries, .. } => {
                entries.iter().map(Entry::size).sum::<usize>() + size_of_val(&entries[..])
            }
            Body::Snapshot { meta, bytes, .. } => meta.size_in_memory() + bytes.len(),
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatAck { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. }
            | Body::SnapshotReceived { .. }
            | Body::Outdated
            | Body::Probe { .. }
            | Body::ProbeAnswer { .. } => 0,
        }
    }

    /// Whether it is sent before bulk data, on the link's control lane: it is small, and timeouts or
    /// acknowledgements depend on it.
    pub fn is_urgent(&self) -> bool {
        match self {
            Body::Append { .. } | Body::Snapshot { .. } => false,
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatAck { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. }
            | Body::SnapshotReceived { .. }
            | Body::Outdated
            | Body::Probe { .. }
            | Body::ProbeAnswer { .. } => true,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
