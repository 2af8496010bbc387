//! Messages between the roles of one node. They have no wire format: no peer can send them.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::hlc::Timestamp;
use quorate_core::key::Key;
use quorate_versions::{Dot, KeyState, VersionVector, WriteId};
use serde::{Deserialize, Serialize};

use crate::keyspace::Keyspace;

/// A message between roles of one node. (It is serializable only for recordings of a role's inputs.)
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LocalMessage {
    /// Make a client's write an event of the key: give it a dot and merge it into the key's state. Sent by a coordinator to
    /// the replica on its node.
    Assign {
        /// Which key.
        key: Key,
        /// `None` is a tombstone.
        value: Option<Bytes>,
        /// The versions that the client has read; `None` supersedes all that this replica has.
        context: Option<VersionVector>,
        /// Identifies a retry.
        write_id: WriteId,
    },
    /// The response to `Assign`, sent immediately: the event exists, but is not durable yet.
    /// [`Stored`](crate::message::Message::Stored) follows when the replica has it durably.
    Assigned {
        /// The event.
        dot: Dot,
        /// Its timestamp.
        timestamp: Timestamp,
        /// The whole merged state of the key, to be sent to the other replicas.
        state: Arc<KeyState>,
    },
    /// The current keyspaces. Sent by the control role to the node role, which sends each changed one to its coordinator.
    Keyspaces(Vec<Keyspace>),
}
