//! The operations of a store: rows of the state, entries of the journal. Plain data, no storage.
//!
//! A store has two halves. The **journal** makes writes durable: acknowledgements wait for it. The **state**
//! serves reads: journalled rows are applied to it in the background, and a memtable shows them to readers in
//! between. A Raft group's log is a *stream* of the journal; so is a node's own sequence of quorum writes.

pub mod contents;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A table of the state. The discriminant is part of the disk format: variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// The node's own metadata: keyspace definitions, known peers, reserved counters.
    Meta = 0,
    /// Key states, in key order: keyspace id, then the order-preserving encoding of the key.
    Records = 1,
    /// The same keys in ring order: keyspace id, token, key. Rows are empty.
    TokenIndex = 2,
    /// A consensus group's state beside its records: its log position, its configuration, its sessions. Group
    /// id, then a key of the group's own.
    Groups = 3,
}

/// One row to write, or to delete where `value` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateWrite {
    /// The table.
    pub table: Table,
    /// At most 1,982 bytes.
    pub key: Bytes,
    /// `None` deletes the row.
    pub value: Option<Bytes>,
}

/// A sequence of entries in the journal. Stream 0 is the node's own; Raft groups have others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// An operation of a commit. All operations of one request become durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JournalOp {
    /// Rows of the state: durable through the journal, visible to reads once durable, applied in the background.
    Write(Vec<StateWrite>),
    /// An entry of a stream, readable by position. The store does not apply it: its owner decides when it
    /// counts.
    Append {
        /// The stream.
        stream: StreamId,
        /// The position; an existing entry there is replaced.
        position: u64,
        /// The entry.
        bytes: Bytes,
    },
    /// Remove the entries of a stream at and after `from` (a conflicting suffix).
    Truncate {
        /// The stream.
        stream: StreamId,
        /// The first position to remove.
        from: u64,
    },
    /// Remove the entries of a stream up to and including `through` (a compacted prefix).
    Trim {
        /// The stream.
        stream: StreamId,
        /// The last position to remove.
        through: u64,
    },
    /// Small state in the journal itself, such as a vote.
    PutHard {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove such a state.
    DeleteHard {
        /// Its key.
        key: Bytes,
    },
}

impl JournalOp {
    /// Whether it only removes data, and needs no room.
    pub fn takes_away(&self) -> bool {
        match self {
            JournalOp::Truncate { .. } | JournalOp::Trim { .. } | JournalOp::DeleteHard { .. } => true,
            JournalOp::Write(_) | JournalOp::Append { .. } | JournalOp::PutHard { .. } => false,
        }
    }
}

/// The priority of a commit when several are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Votes, appends: timeouts depend on them.
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
        /// The table.
        table: Table,
        /// The key.
        key: Bytes,
    },
    /// Rows in key order, `start` inclusive, `end` exclusive, until either limit is reached (at least one row).
    Range {
        /// The table.
        table: Table,
        /// The first key.
        start: Bytes,
        /// The exclusive upper bound.
        end: Bytes,
        /// At most this many rows.
        limit_rows: u32,
        /// About this many bytes of keys and values.
        limit_bytes: u32,
    },
    /// A hard state ([`JournalOp::PutHard`]): at most one row.
    Hard {
        /// Its key.
        key: Bytes,
    },
    /// Entries of a stream from a position on, until either limit is reached (at least one). The keys of the rows are
    /// the positions, eight bytes, big endian.
    Log {
        /// The stream.
        stream: StreamId,
        /// The first position.
        from: u64,
        /// At most this many entries.
        limit_rows: u32,
        /// About this many bytes of entries.
        limit_bytes: u32,
    },
}

/// The result of a [`Query`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// Key and value, in key order; at most one for a `Get`.
    pub rows: Vec<(Bytes, Bytes)>,
    /// For a `Range` and a `Log`: a limit was reached before the end.
    pub more: bool,
}
