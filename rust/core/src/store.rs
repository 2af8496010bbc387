//! What roles ask of a store: rows of the state, entries of the journal. Plain data, no storage.
//!
//! A store has two halves. The **journal** makes things durable: it is what an acknowledgement waits for. The
//! **state** is what reads see: rows that were journalled are applied to it in the background, and a memtable shows
//! them to readers in between. A Raft group's log is a *stream* of the journal; so is a node's own sequence of
//! quorum writes.

pub mod contents;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A table of the state. The discriminant is part of the disk format: variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// The node's own small facts: keyspace definitions, the peers it knows, reserved counters.
    Meta = 0,
    /// Key states, in key order: keyspace id, then the order-preserving encoding of the key.
    Records = 1,
    /// The same keys in ring order: keyspace id, token, key. Rows are empty.
    TokenIndex = 2,
    /// What a consensus group knows beside its records: how far it has applied its log, its configuration, its sessions.
    /// Group id, then a name of the group's own.
    Groups = 3,
}

/// One row to write, or to delete where `value` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateWrite {
    /// Where.
    pub table: Table,
    /// At most 1,982 bytes.
    pub key: Bytes,
    /// `None` deletes the row.
    pub value: Option<Bytes>,
}

/// A sequence of entries in the journal. Stream 0 is the node's own; Raft groups have others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// One operation of a commit. All operations of one request become durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JournalOp {
    /// Rows of the state: durable through the journal, visible to reads once durable, applied in the background.
    Write(Vec<StateWrite>),
    /// An entry of a stream, readable by position. Not applied by the store: its owner decides when it counts.
    Append {
        /// Whose log.
        stream: StreamId,
        /// Where in it; an existing entry there is replaced.
        position: u64,
        /// The entry.
        bytes: Bytes,
    },
    /// Forget the entries of a stream at and after `from` (a conflicting suffix).
    Truncate {
        /// Whose log.
        stream: StreamId,
        /// The first position that goes.
        from: u64,
    },
    /// Forget the entries of a stream up to and including `through` (a compacted prefix).
    Trim {
        /// Whose log.
        stream: StreamId,
        /// The last position that goes.
        through: u64,
    },
    /// Small state kept in the journal itself, such as a vote.
    PutHard {
        /// Its name.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Forget such a state.
    DeleteHard {
        /// Its name.
        key: Bytes,
    },
}

impl JournalOp {
    /// Whether it only takes away: then it needs no room.
    pub fn takes_away(&self) -> bool {
        match self {
            JournalOp::Truncate { .. } | JournalOp::Trim { .. } | JournalOp::DeleteHard { .. } => true,
            JournalOp::Write(_) | JournalOp::Append { .. } | JournalOp::PutHard { .. } => false,
        }
    }
}

/// Which requests a commit takes first when several wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Votes, appends, anything a timeout waits for.
    Urgent,
    /// Writes of clients.
    Normal,
    /// Snapshot installs, range streams, compaction: in slices between the others.
    Bulk,
}

/// A read of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// One row.
    Get {
        /// Where.
        table: Table,
        /// Which.
        key: Bytes,
    },
    /// Rows in key order, `start` inclusive, `end` exclusive, until either limit is reached (at least one row).
    Range {
        /// Where.
        table: Table,
        /// The first key.
        start: Bytes,
        /// The first key that is too far.
        end: Bytes,
        /// At most this many rows.
        limit_rows: u32,
        /// About this many bytes of keys and values.
        limit_bytes: u32,
    },
    /// A hard state ([`JournalOp::PutHard`]): at most one row.
    Hard {
        /// Its name.
        key: Bytes,
    },
    /// Entries of a stream from a position on, until either limit is reached (at least one). The keys of the rows are
    /// the positions, eight bytes, big endian.
    Log {
        /// Whose log.
        stream: StreamId,
        /// The first position.
        from: u64,
        /// At most this many entries.
        limit_rows: u32,
        /// About this many bytes of entries.
        limit_bytes: u32,
    },
}

/// The rows that answer a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// Key and value, in key order; at most one for a `Get`.
    pub rows: Vec<(Bytes, Bytes)>,
    /// For a `Range` and a `Log`: a limit was reached before the end.
    pub more: bool,
}
