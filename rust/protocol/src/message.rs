//! Messages between roles. Each variant is a promise: who sends it, when, and what the receiver may conclude.
//!
//! Messages may be lost, duplicated and reordered. Variants are only ever appended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_raft::{self as raft, types::GroupId};
use quorate_versions::KeyState;
use serde::{Deserialize, Serialize};

use crate::api::{Request, Response};
use crate::control_command::Change;
use crate::telemetry::TraceContext;

/// The envelope of every message. On the wire, the deadline is the number of milliseconds left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The sender's topology generation.
    pub generation: u64,
    /// The sender's id of the operation; a response carries the same.
    pub request: u64,
    /// The sender stops waiting at this time; later work is dropped.
    pub deadline: Instant,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// A message between roles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Merge this state into yours and acknowledge when it is durable. Sent by the coordinator of a write, and by read
    /// repair; the state is always whole (every sibling and the vector), never a bare value.
    Store {
        /// Which key.
        key: Key,
        /// What to merge.
        state: Arc<KeyState>,
    },
    /// The state of the `Store` (or of the [`Assign`](crate::local::LocalMessage::Assign), on its own node) with this request
    /// id is durable at the sender.
    Stored,
    /// Return the state of this key. Sent by the coordinator of a read.
    Fetch {
        /// Which key.
        key: Key,
    },
    /// The key's durable state at the sender; an empty state if it has none.
    Fetched {
        /// Whole.
        state: Arc<KeyState>,
    },
    /// Return the states of the keys in this range. Sent by the coordinator of a scan.
    FetchRange {
        /// Inclusive lower bound, an encoded key.
        start: Bytes,
        /// Exclusive upper bound, an encoded key.
        end: Bytes,
        /// At most this many rows.
        limit: u32,
    },
    /// One page, in key order.
    FetchedRange {
        /// Keys and their states, tombstones included.
        rows: Vec<(Key, Arc<KeyState>)>,
        /// The range has more rows after the last one.
        more: bool,
    },
    /// The operation with this request id failed at the sender. If the error is definite, it has written nothing and will
    /// not; a write that the disk refused may still become durable as part of a later one.
    Failed(Error),
    /// Execute this client's request. Sent by a coordinator that holds no replica of the key to one that does, and by a
    /// forwarder to a server of the group.
    Forward(Request),
    /// The response to `Forward` and to `Propose`.
    Forwarded(Result<Response, Error>),
    /// The response of a server that does not lead to a `Propose` or a forwarder's `Forward`: it has not passed it on and
    /// will not. With request 0, a shard's notification of the forwarder on its own node.
    Redirect {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The sender serves all keyspaces of the generation that is the request id. Sent by a node role to its control role,
    /// and from there to the leader's.
    Defined,
    /// Replace your record of the key, which is unreadable, by this state: the merge of *all* the other replicas of the
    /// key. Sent by the coordinator of a read; acknowledged like `Store`. A replica whose record is readable (again)
    /// merges it.
    Heal {
        /// Which key.
        key: Key,
        /// The new state.
        state: Arc<KeyState>,
    },
    /// A message from one server of a Raft group to another.
    Raft {
        /// Which group.
        group: GroupId,
        /// The Raft message.
        message: raft::message::Message,
    },
    /// Commit this change; `Forwarded` returns its outcome. Sent by a control role to the leader's. The same change may be
    /// sent again, to the same leader or another: it is executed once.
    Propose(Change),
    /// Several messages of one role of a quorum keyspace to another, in one envelope: all messages of a turn of the sender
    /// to the receiver. Each is handled like a separate message. The header has the latest of their deadlines, and no
    /// request id.
    Parts(Vec<Part>),
}

/// One message of [`Message::Parts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// The request id of its own header.
    pub request: u64,
    /// The difference between the envelope's deadline and its own, in milliseconds; rounded up, so that no deadline is
    /// extended.
    pub earlier_ms: u32,
    /// Its contents.
    pub body: PartBody,
}

/// The frequent messages, which are batched: see the messages of the same names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PartBody {
    /// [`Message::Store`].
    Store {
        /// Which key.
        key: Key,
        /// What to merge.
        state: Arc<KeyState>,
    },
    /// [`Message::Stored`].
    Stored,
    /// [`Message::Fetch`].
    Fetch {
        /// Which key.
        key: Key,
    },
    /// [`Message::Fetched`].
    Fetched {
        /// Whole.
        state: Arc<KeyState>,
    },
    /// [`Message::Failed`].
    Failed(Error),
}

impl PartBody {
    /// The contents of a message as a part; a message that is never batched is passed to `whole` unchanged.
    pub fn of(message: Message, whole: impl FnOnce(Message)) -> Option<PartBody> {
        Some(match message {
            Message::Store { key, state } => PartBody::Store { key, state },
            Message::Stored => PartBody::Stored,
            Message::Fetch { key } => PartBody::Fetch { key },
            Message::Fetched { state } => PartBody::Fetched { state },
            Message::Failed(error) => PartBody::Failed(error),
            Message::FetchRange { .. }
            | Message::FetchedRange { .. }
            | Message::Forward(_)
            | Message::Forwarded(_)
            | Message::Redirect { .. }
            | Message::Defined
            | Message::Heal { .. }
            | Message::Raft { .. }
            | Message::Propose(_)
            | Message::Parts(_) => {
                whole(message);
                return None;
            }
        })
    }

    /// About its size in memory besides the struct, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            PartBody::Store { key, state } => key.size() + state.size(),
            PartBody::Fetch { key } => key.size(),
            PartBody::Fetched { state } => state.size(),
            PartBody::Failed(error) => error.size(),
            PartBody::Stored => 0,
        }
    }
}

impl From<PartBody> for Message {
    fn from(body: PartBody) -> Message {
        match body {
            PartBody::Store { key, state } => Message::Store { key, state },
            PartBody::Stored => Message::Stored,
            PartBody::Fetch { key } => Message::Fetch { key },
            PartBody::Fetched { state } => Message::Fetched { state },
            PartBody::Failed(error) => Message::Failed(error),
        }
    }
}

impl Part {
    /// The header and the message that it represents in an envelope with this header.
    pub fn unpack(self, header: &Header) -> (Header, Message) {
        let own = Header {
            request: self.request,
            deadline: header.deadline - Duration::from_millis(u64::from(self.earlier_ms)),
            ..*header
        };
        (own, self.body.into())
    }

    /// Packs messages into parts, with the header of their common envelope; `None` if there are none. All must have the
    /// same generation, and no trace.
    pub fn pack(messages: Vec<(Header, PartBody)>) -> Option<(Header, Message)> {
        let latest = messages.iter().map(|(header, _)| header.deadline).max()?;
        let generation = messages.first()?.0.generation;
        let part = |(header, body): (Header, PartBody)| {
            let earlier = latest.since(header.deadline).as_micros().div_ceil(1000);
            Part {
                request: header.request,
                earlier_ms: u32::try_from(earlier).unwrap_or(u32::MAX),
                body,
            }
        };
        let header = Header {
            generation,
            request: 0,
            deadline: latest,
            trace: None,
        };
        Some((header, Message::Parts(messages.into_iter().map(part).collect())))
    }
}

/// An envelope with more encoded bytes than this is bulk.
pub const BULK_THRESHOLD: usize = 64 << 10;

/// Which lane of a [link](crate::link) an envelope takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Without credit, before all others.
    Control,
    /// The default.
    Data,
    /// In chunks.
    Bulk,
}

impl Message {
    /// Its lane if its envelope has `size` encoded bytes. A message belongs to the control lane if it is small and must be
    /// delivered while the data lane waits for credit.
    pub fn lane(&self, size: usize) -> Lane {
        if size > BULK_THRESHOLD {
            return Lane::Bulk;
        }
        match self {
            Message::Raft { message, .. } if message.body.is_urgent() => Lane::Control,
            Message::Redirect { .. } | Message::Defined => Lane::Control,
            Message::Store { .. }
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
            | Message::Parts(_)
            | Message::Raft { .. } => Lane::Data,
        }
    }

    /// The group of an append. Appends are delivered in order, however large: a follower rejects one that does not follow
    /// its log, and the leader would start to probe.
    pub fn appends_to(&self) -> Option<GroupId> {
        match self {
            Message::Raft { group, message }
                if matches!(message.body, raft::message::Body::Append { .. }) =>
            {
                Some(*group)
            }
            _ => None,
        }
    }

    /// About its size in memory besides the struct, in bytes; no less than the encoded size of its variable-length parts.
    pub fn bytes(&self) -> usize {
        match self {
            Message::Fetched { state } => state.size(),
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
            Message::Raft { message, .. } => message.body.size(),
            Message::Propose(change) => change.size(),
            Message::Parts(parts) => {
                parts.iter().map(|part| part.body.bytes()).sum::<usize>() + size_of_val(&parts[..])
            }
            Message::Stored | Message::Redirect { .. } | Message::Defined => 0,
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
