//! What the servers of a group say to each other. Each variant is a promise: who sends it, when, and what the
//! receiver may conclude.
//!
//! Messages may be lost, repeated and reordered. Every message carries its sender's term: whoever sees a
//! later one than its own adopts it and follows; whoever is spoken to in an earlier one answers
//! [`Body::Outdated`] and does nothing else.
//!
//! **All but the pre-votes leave only when the sender has its term, and its vote in it, durably.** That is
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
    /// What it says.
    pub body: Body,
}

/// What a message says. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me in the term after mine? Sent by a server that has not heard from a leader.
    /// Changes nothing at either end; without a majority's yes the sender does not disturb anyone with a new
    /// term.
    PreVote {
        /// The sender's last entry.
        last: LogPosition,
    },
    /// The answer to `PreVote`: a guess, not a promise.
    PreVoteAnswer {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me in this term. Sent by a candidate, which has voted for itself durably.
    Vote {
        /// The sender's last entry.
        last: LogPosition,
    },
    /// The answer to `Vote`. Granted: the sender has given its only vote of this term to the receiver,
    /// durably, and has no entry that is more up to date than the candidate's last one.
    VoteAnswer {
        /// Whether it has.
        granted: bool,
    },
    /// From the leader of this term: behind `previous` my log goes on with `entries`. A receiver whose log
    /// has `previous` has the leader's whole log up to there (Log Matching), and takes the entries in place
    /// of whatever conflicts.
    Append {
        /// The entry before the first of `entries`.
        previous: LogPosition,
        /// Everything up to here is committed, as far as the receiver's log is known to match.
        commit: LogIndex,
        /// In order, without gaps; may be empty.
        entries: Vec<Entry>,
    },
    /// The answer to `Append`: the sender has the leader's log up to here *durably*, and votes for nobody who
    /// does not have what is committed of it.
    Accepted {
        /// Up to here.
        through: LogIndex,
    },
    /// The answer to an `Append` whose `previous` the sender does not have.
    Rejected {
        /// The index of that `previous`.
        previous: LogIndex,
        /// Where the leader should look next: the first entry of the term that the sender has at `previous`,
        /// or the place behind its last entry (with term 0) when its log is too short.
        conflict: LogPosition,
    },
    /// From the leader of this term: I am there. Never behind bulk data, so that silence means something.
    Heartbeat {
        /// As in `Append`.
        commit: LogIndex,
        /// Rises with each round of heartbeats that reads wait for.
        round: u64,
    },
    /// The answer to `Heartbeat`: when it arrived, the sender knew of no later term. Also repeats what an
    /// `Accepted` that was lost would have said.
    HeartbeatAck {
        /// Of the heartbeat.
        round: u64,
        /// The sender's log is known to match the leader's up to here, durable or not.
        received: LogIndex,
        /// And has this of it durably.
        durable: LogIndex,
    },
    /// From a follower that was asked for a linearizable read: up to where must I have applied the log, so
    /// that the read sees everything acknowledged before you got this?
    ReadIndex {
        /// The sender's name for the question.
        request: u64,
    },
    /// The answer to `ReadIndex`, after a round of heartbeats has confirmed that the sender still led.
    ReadIndexAnswer {
        /// Of the question.
        request: u64,
        /// Up to here.
        index: LogIndex,
    },
    /// From the leader: a part of a snapshot that stands for the log up to its position, which the receiver
    /// lacks and the leader no longer has. Chunks of one snapshot are alike whoever sends them: a transfer
    /// goes on where it was.
    Snapshot {
        /// What the whole is.
        meta: Box<SnapshotMeta>,
        /// Where in it the bytes belong.
        offset: u64,
        /// At least one.
        bytes: Bytes,
    },
    /// The answer to `Snapshot`: the sender has this many bytes of it, from its beginning.
    SnapshotReceived {
        /// Up to which entry that snapshot goes.
        position: LogPosition,
        /// The first byte that it lacks.
        offset: u64,
    },
    /// The term that you speak for is over: mine is later. Whoever gets this follows in that term.
    Outdated,
    /// From a follower: with your next round of heartbeats, tell me how far you are. Nobody waits for that.
    Probe {
        /// The sender's name for the question.
        probe: u64,
    },
    /// The answer to `Probe`, when a quorum has answered a round that began after the sender got it: everything that anybody
    /// was told before the receiver asked is in the log up to `index`.
    Fresh {
        /// Of the question.
        probe: u64,
        /// Up to here.
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
            | Body::Fresh { .. } => true,
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

    /// Whether it may leave before the sender's term is durable: it promises nothing.
    pub(super) fn is_free(&self) -> bool {
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
            | Body::Fresh { .. } => false,
        }
    }

    /// About how many bytes it takes in memory beside its own size; no fewer than on the wire.
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
            | Body::Fresh { .. } => 0,
        }
    }

    /// Whether it goes before bulk data, on the link's control lane: it is small, and others' timeouts or acknowledgements
    /// wait for it.
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
            | Body::Fresh { .. } => true,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
