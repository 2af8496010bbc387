//! What roles say to each other. Each variant is a promise: who sends it, when, and what the receiver may conclude.
//!
//! Messages may be lost, repeated and reordered. Variants are only ever appended.

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
    /// Merge this state into yours and say when that is durable. Sent by the coordinator of a write, and by read
    /// repair; the state is always whole (every sibling and the vector), never a bare value.
    Store {
        /// Which key.
        key: Key,
        /// What to merge.
        state: Arc<KeyState>,
    },
    /// The sender has everything of the `Store` (or of the [`Assign`](crate::local::LocalMessage::Assign), on its own node) with
    /// this request id durably.
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
    /// A coordinator that holds no replica of the key hands a client's request to one that does; a forwarder, to a server of the
    /// group.
    Forward(Request),
    /// The answer to `Forward` and to `Propose`.
    Forwarded(Result<Response, Error>),
    /// The answer of a server that does not lead, to a `Propose` or to a forwarder's `Forward`: it has not passed it on and will
    /// not. With request 0, a shard's news for the forwarder of its own node.
    Redirect {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The sender serves all keyspaces of the generation that is the request id. From a node role to its control role, and
    /// from there to the leader's.
    Defined,
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
    /// Several messages of one role of a quorum keyspace to another, in one envelope: what a turn of the sender has for the
    /// receiver. Each counts as if it had come by itself. The header has the latest of their deadlines, and names no request.
    Parts(Vec<Part>),
}

/// One message of [`Message::Parts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// What its own header would have had as the request.
    pub request: u64,
    /// How many milliseconds before that of the envelope its own deadline is; rounded up, so that nobody gains time.
    pub earlier_ms: u32,
    /// What it says.
    pub body: PartBody,
}

/// What comes in crowds, for which an envelope each is a waste: see the messages of the same names.
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
    /// What a message says as a part of others; one that never is a part is given to `whole`, as it was.
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

    /// About how many bytes it takes in memory beside its own size.
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
    /// The header and the message that it stands for in an envelope with this header.
    pub fn unpack(self, header: &Header) -> (Header, Message) {
        let own = Header {
            request: self.request,
            deadline: header.deadline - Duration::from_millis(u64::from(self.earlier_ms)),
            ..*header
        };
        (own, self.body.into())
    }

    /// The parts of these messages, and the header of the envelope that they share; `None` if there are none. All have the
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
    /// Outside credit, before all others.
    Control,
    /// The ordinary one.
    Data,
    /// In chunks.
    Bulk,
}

impl Message {
    /// The lane that it takes when its envelope has `size` encoded bytes. A message belongs to the control lane if it is small
    /// and must get through while the data lane waits for credit.
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

    /// The group whose appends it is one of. They are delivered in their order, however large: a follower rejects what does not
    /// fit behind what it has, and the leader would start to probe.
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

    /// About how many bytes it takes in memory beside its own size; never less than what its parts of varying length have on
    /// the wire.
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
