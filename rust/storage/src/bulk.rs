//! Changes of the state that bypass the journal.

use bytes::Bytes;
use quorate_core::store::Table;

use crate::files::format::Slice;

/// A change of the state that bypasses journal and memtable, durable by itself; see [`Store::bulk`](crate::store::Store::bulk).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Applies everything that is unapplied.
    Flush,
    /// Deletes the row `marker`, and rows with the prefix, up to about `budget` bytes of them. Repeated until none is left.
    Clear {
        /// The table.
        table: Table,
        /// The prefix of the keys.
        prefix: Bytes,
        /// The key of the row that is deleted first.
        marker: Bytes,
        /// Bytes of keys and values.
        budget: usize,
    },
    /// Writes rows.
    Put {
        /// The table.
        table: Table,
        /// The rows, framed for it.
        rows: Slice,
    },
}
