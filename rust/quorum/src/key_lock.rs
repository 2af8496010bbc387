//! The lock of a key with a pending read or write: its newest state in memory, and the work that waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::message::Header;
use quorate_protocol::role::Address;
use quorate_versions::{KeyState, VersionVector, WriteId};

/// Work on one key that needs its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) from: Address,
    pub(super) header: Header,
    pub(super) kind: WorkKind,
}

/// See [`quorate_protocol::message::Message`] for the meaning of each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum WorkKind {
    Assign {
        value: Option<Bytes>,
        context: Option<VersionVector>,
        write_id: WriteId,
    },
    Store {
        state: Arc<KeyState>,
        /// It may replace a corrupt record.
        heals: bool,
    },
}

/// A key with a read in flight, or with writes that are not durable yet. A key without either needs no lock: its
/// state is on disk.
///
/// Invariants: `state` is `None` exactly while the read is in flight, and work is pending only then; the persist
/// `newest`, if any, is in flight and carries `state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct KeyLock {
    /// Includes writes that are not durable yet, so that the merges of a key are serialized.
    pub(super) state: Option<Arc<KeyState>>,
    /// Whether the key's row in the token index is durable and need not be written again.
    pub(super) indexed: bool,
    /// The stored record is unreadable.
    pub(super) corrupt: bool,
    /// Persists in flight.
    pub(super) in_flight: u32,
    /// The persist that makes `state` durable; `None` if none is in flight or the disk refused it.
    pub(super) newest: Option<u64>,
    /// Work that waits for the read.
    pub(super) pending: VecDeque<Work>,
}
