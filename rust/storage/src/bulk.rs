//! Changes of the state that go past the journal.

use bytes::Bytes;
use quorate_core::store::Table;

use crate::files::format::Slice;

/// A change of the state that goes past journal and memtable, durable by itself; see [`Store::bulk`](crate::store::Store::bulk).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Brings to the state whatever is unapplied now.
    Flush,
    /// Deletes the row `marker`, and rows whose keys begin with the prefix, up to about `budget` bytes of them. There is
    /// more to do until none is left.
    Clear {
        /// Of which table.
        table: Table,
        /// How the keys begin.
        prefix: Bytes,
        /// The key of the row that goes first.
        marker: Bytes,
        /// Bytes of keys and values.
        budget: usize,
    },
    /// Writes rows.
    Put {
        /// Into which table.
        table: Table,
        /// The rows, framed for it.
        rows: Slice,
    },
}
