//! What roles say to each other. Each variant is a promise: who sends it, when, and what the receiver may conclude.
//!
//! Messages may be lost, repeated and reordered. Variants are only ever appended.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_raft::{self as raft, types::GroupId};
use quorate_versions::{Dot, KeyState, VersionVector, WriteId};
use serde::{Deserialize, Serialize};

use crate::api::{Request, Response};
use crate::control_command::Change;
use crate::keyspace::Keyspace;
use crate::telemetry::TraceContext;

/// The envelope of every message. On the wire the deadline travels as the milliseconds that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The sender's topology generation.
    pub generation: u64,
    /// The sender's name for the exchange; an answer carries the same.
    pub request: u64,
    /// Nobody waits for it any longer after this; such work is dropped.
    pub deadline: Instant,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// A message between roles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A coordinator asks the replica *on its own node* to make a client's write an event of the key: to give it a
    /// dot and merge it into the key's state.
    Assign {
        /// Which key.
        key: Key,
        /// `None` is a tombstone.
        value: Option<Bytes>,
        /// What the client has seen; `None` supersedes what this replica sees.
        context: Option<VersionVector>,
        /// Recognises a retry.
        write_id: WriteId,
    },
    /// The answer to `Assign`, sent at once: the event exists, but nothing is durable yet. `Stored` follows when the
    /// replica has it durably.
    Assigned {
        /// The event.
        dot: Dot,
        /// When it happened.
        timestamp: Timestamp,
        /// The whole merged state of the key: what the other replicas must be sent.
        state: Arc<KeyState>,
    },
    /// Merge this state into yours and say when that is durable. Sent by the coordinator of a write, and by read
    /// repair; the state is always whole (every sibling and the vector), never a bare value.
    Store {
        /// Which key.
        key: Key,
        /// What to merge.
        state: Arc<KeyState>,
    },
    /// The sender has everything of the `Store` or `Assign` with this request id durably.
    Stored,
    /// What is the state of this key? Sent by the coordinator of a read.
    Fetch {
        /// Which key.
        key: Key,
    },
    /// The key's state as the sender has it durably; an empty state when it has none.
    Fetched {
        /// Whole.
        state: Arc<KeyState>,
    },
    /// Which states do you hold in this range? Sent by the coordinator of a scan.
    FetchRange {
        /// The first encoded key, inclusive.
        start: Bytes,
        /// The first encoded key that is too far.
        end: Bytes,
        /// At most this many rows.
        limit: u32,
    },
    /// One page, in key order.
    FetchedRange {
        /// Keys and their states, tombstones included.
        rows: Vec<(Key, Arc<KeyState>)>,
        /// The range goes on after the last row.
        more: bool,
    },
    /// The exchange with this request id failed at the sender. It has changed nothing and will not, if the error is
    /// definite; a write that was refused only by the disk may yet become durable as part of a later one.
    Failed(Error),
    /// A coordinator that holds no replica of the key hands a client's request to one that does.
    Forward(Request),
    /// The answer to `Forward` and to `Propose`.
    Forwarded(Result<Response, Error>),
    /// The answer of a control role that does not lead to a `Propose`: it has not passed it on and will not.
    Redirect {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The sender serves all keyspaces of the generation that is the request id. From a node role to its control role, and
    /// from there to the leader's.
    Defined,
    /// These are the keyspaces now. From the control role to the node role, and, with the one that has changed, from there to
    /// its coordinator; never over the wire.
    Keyspaces(Vec<Keyspace>),
    /// Put this state in the place of your record of the key, which is unreadable: it is the merge of what *all* the
    /// other replicas of the key have. Sent by the coordinator of a read; answered as `Store` is. A replica whose
    /// record is readable (again) merges it.
    Heal {
        /// Which key.
        key: Key,
        /// What to put there.
        state: Arc<KeyState>,
    },
    /// From one server of a Raft group to another.
    Raft {
        /// Which group.
        group: GroupId,
        /// What it says.
        message: raft::message::Message,
    },
    /// A control role asks the leader's to have this change committed; `Forwarded` answers what became of it. The same
    /// change may be sent again, to the same leader or another: it is executed once.
    Propose(Change),
    /// A role to itself, when it has put something aside: everything that waited with it has been seen. Never over the wire.
    Gathered,
}

/// An envelope with more encoded bytes than this is bulk.
pub const BULK_THRESHOLD: usize = 64 << 10;

/// Which lane of a [link](crate::link) an envelope takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Outside credit, before all others.
    Control,
    /// The ordinary one.
    Data,
    /// In chunks.
    Bulk,
}

impl Message {
    /// The lane that it takes when its envelope has `size` encoded bytes. A message belongs to the control lane if it is small,
    /// rare, and must get through while the data lane waits for credit.
    pub fn lane(&self, size: usize) -> Lane {
        if size > BULK_THRESHOLD {
            return Lane::Bulk;
        }
        match self {
            Message::Raft { message, .. } if message.body.is_urgent() => Lane::Control,
            Message::Redirect { .. } | Message::Defined | Message::Keyspaces(_) | Message::Gathered => {
                Lane::Control
            }
            Message::Assign { .. }
            | Message::Assigned { .. }
            | Message::Store { .. }
            | Message::Heal { .. }
            | Message::Stored
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::FetchRange { .. }
            | Message::FetchedRange { .. }
            | Message::Failed(_)
            | Message::Forward(_)
            | Message::Forwarded(_)
            | Message::Propose(_)
            | Message::Raft { .. } => Lane::Data,
        }
    }

    /// About how many bytes it takes in memory beside its own size; never less than what its parts of varying length have on
    /// the wire.
    pub fn bytes(&self) -> usize {
        match self {
            Message::Assign {
                key, value, context, ..
            } => {
                let context = context.as_ref().map_or(0, VersionVector::size);
                key.size() + value.as_ref().map_or(0, Bytes::len) + context
            }
            Message::Assigned { state, .. } | Message::Fetched { state } => state.size(),
            Message::Store { key, state } | Message::Heal { key, state } => key.size() + state.size(),
            Message::Fetch { key } => key.size(),
            Message::FetchRange { start, end, .. } => start.len() + end.len(),
            Message::FetchedRange { rows, .. } => {
                let row =
                    |(key, state): &(Key, Arc<KeyState>)| key.size() + state.size() + size_of::<KeyState>();
                rows.iter().map(row).sum::<usize>() + size_of_val(&rows[..])
            }
            Message::Failed(error) | Message::Forwarded(Err(error)) => error.size(),
            Message::Forward(request) => request.bytes(),
            Message::Forwarded(Ok(response)) => response.bytes(),
            Message::Keyspaces(keyspaces) => {
                keyspaces.iter().map(Keyspace::size).sum::<usize>() + size_of_val(&keyspaces[..])
            }
            Message::Raft { message, .. } => message.body.size(),
            Message::Propose(change) => change.size(),
            Message::Stored | Message::Redirect { .. } | Message::Defined | Message::Gathered => 0,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
