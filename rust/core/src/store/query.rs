//! Reads of a store, and what answers them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{StreamId, Table};

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
    /// A hard state ([`JournalOp::PutHard`](crate::store::JournalOp::PutHard)): at most one row.
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
