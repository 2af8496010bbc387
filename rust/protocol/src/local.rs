//! What roles of one node say to each other. None of it has bytes: no peer can say it.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::hlc::Timestamp;
use quorate_core::key::Key;
use quorate_versions::{Dot, KeyState, VersionVector, WriteId};
use serde::{Deserialize, Serialize};

use crate::keyspace::Keyspace;

/// A message between roles of one node. (It can be serialized for recordings of a role's inputs only.)
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LocalMessage {
    /// A coordinator asks the replica on its node to make a client's write an event of the key: to give it a dot and merge
    /// it into the key's state.
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
    /// The answer to `Assign`, sent at once: the event exists, but nothing is durable yet.
    /// [`Stored`](crate::message::Message::Stored) follows when the replica has it durably.
    Assigned {
        /// The event.
        dot: Dot,
        /// When it happened.
        timestamp: Timestamp,
        /// The whole merged state of the key: what the other replicas must be sent.
        state: Arc<KeyState>,
    },
    /// These are the keyspaces now. From the control role to the node role, and, with the one that has changed, from there to
    /// its coordinator.
    Keyspaces(Vec<Keyspace>),
}
