//! The contract of both stores: what a commit guarantees and what a read may see.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::store::{JournalOp, StateWrite, StreamId, Table};

use crate::bulk::Bulk;
use crate::error::{CommitError, ReadError};
use crate::limits::{MAX_HARD_KEY_BYTES, MAX_KEY_BYTES};

/// The stream of the node's own writes. Only [`JournalOp::Write`] adds to it.
pub const NODE_STREAM: StreamId = StreamId(0);

/// The tables of the state, in the order of their tags.
pub const TABLES: [Table; 4] = [Table::Meta, Table::Records, Table::TokenIndex, Table::Groups];

/// A store, for the single thread that owns its writes.
///
/// A batch given to [`commit`](Store::commit) is durable as a whole when the call returns `Ok`; reads see it from then on,
/// and not before. [`apply_step`](Store::apply_step) moves rows from the journal to the state in the background: it
/// changes what a restart has to replay, never what a read sees.
///
/// After a [`CommitError::Fatal`] every later commit and step returns the same error.
pub trait Store: Send {
    /// Makes all operations durable, in order, or none.
    ///
    /// # Errors
    /// [`CommitError::Full`]: nothing was written, the store stays usable. [`CommitError::Fatal`]: the node must stop.
    ///
    /// # Panics
    /// If an operation breaks the contract: a key that is empty or too long, an entry for [`NODE_STREAM`].
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError>;

    /// Applies about `budget` bytes of journalled rows to the state. A round applies what is unapplied when it begins; `true`
    /// while the round is incomplete.
    ///
    /// # Errors
    /// [`CommitError::Full`]: the rows stay in the journal and visible; retry later. [`CommitError::Fatal`]: the node must
    /// stop.
    fn apply_step(&mut self, budget: usize) -> Result<bool, CommitError>;

    /// Changes the state directly, bypassing the journal, as part of loading a file of rows. Durable and visible to reads when
    /// it returns, except for rows with unapplied changes. `true` if it must be repeated.
    ///
    /// # Errors
    /// [`CommitError::Full`]: the change was not made, the store stays usable. [`CommitError::Fatal`]: the node must stop.
    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError>;

    /// The receiver of derived rows.
    fn derived(&self) -> Arc<dyn DerivedRows>;

    /// The last run of derived rows that is durable; 0 before the first.
    fn flushed(&self) -> u64;

    /// Bytes of rows that are durable, or derived, but not yet applied. They are held in memory.
    fn unapplied_bytes(&self) -> usize;

    /// A reader, usable on any thread.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The half of a store that makes batches durable, for its own thread. Methods as in [`Store`].
pub trait Committer: Send {
    /// Makes all operations durable, in order, or none.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError>;

    /// Bytes of rows that are durable but not yet applied.
    fn unapplied_bytes(&self) -> usize;

    /// A reader.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The half of a store that applies journalled rows, for its own thread. Methods as in [`Store`].
pub trait Applier: Send {
    /// Applies about `budget` bytes of journalled rows to the state; `true` while the round is incomplete.
    ///
    /// # Errors
    /// As [`Store::apply_step`].
    fn apply_step(&mut self, budget: usize) -> Result<bool, CommitError>;

    /// Changes the state directly, bypassing the journal; `true` if it must be repeated.
    ///
    /// # Errors
    /// As [`Store::bulk`].
    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError>;

    /// The receiver of derived rows.
    fn derived(&self) -> Arc<dyn DerivedRows>;

    /// The last run of derived rows that is durable; 0 before the first.
    fn flushed(&self) -> u64;

    /// Bytes of rows that are durable, or derived, but not yet applied.
    fn unapplied_bytes(&self) -> usize;
}

/// Receives rows that their owner derives from its own log: the state that a Raft group's committed entries produce.
///
/// Journalling them again would double every write. So they are visible to reads immediately and are flushed to the state
/// by the next round of applying; a crash before that loses them, and the owner derives them again. The owner may trim its
/// log only up to what [`Store::flushed`] covers. Each call is one *run*: runs are flushed atomically and in order.
pub trait DerivedRows: Send + Sync {
    /// Applies a run; returns its number, from 1.
    ///
    /// # Panics
    /// As [`Store::commit`].
    fn apply_rows(&self, writes: Vec<StateWrite>) -> u64;

    /// Bytes of rows that are durable, or derived, but not yet applied.
    fn unapplied_bytes(&self) -> usize;
}

/// Rows of one table in key order, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Key and value. Empty only at the end of the range.
    pub rows: Vec<(Bytes, Bytes)>,
    /// The start of the next page; `None` at the end of the range.
    pub next: Option<Bytes>,
}

/// The first and last position of a stream that has entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Position of the first entry.
    pub first: u64,
    /// Position of the last entry.
    pub last: u64,
}

/// Reads of durable state. Calls may fault pages in: long ones belong on reader threads.
pub trait Reader: Send + Sync {
    /// The value of a row.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if the stored bytes are corrupt.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// The rows from `start` to `end` (exclusive; `None`: to the end of the table), at most `limit_rows` rows and about
    /// `limit_bytes` bytes of keys and values, at least one row. The page is a consistent snapshot: of a run of derived rows,
    /// and of a batch, it has all rows in its range or none. It ends before a corrupt row.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if the first row of the page is corrupt; continue after its key.
    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError>;

    /// A hard state.
    ///
    /// # Errors
    /// [`ReadError::CorruptHard`] if the stored bytes are corrupt.
    fn get_hard(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Entries of a stream from position `from` on, at most `limit_rows` and about `limit_bytes`, at least one. They end before
    /// a corrupt entry.
    ///
    /// # Errors
    /// [`ReadError::CorruptEntry`] if the first entry is corrupt.
    ///
    /// # Panics
    /// For [`NODE_STREAM`], whose entries are internal.
    fn log(
        &self,
        stream: StreamId,
        from: u64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError>;

    /// The first and last position of a stream, `None` if it has no entries.
    ///
    /// # Errors
    /// [`ReadError::Failed`] if the store cannot be read.
    ///
    /// # Panics
    /// For [`NODE_STREAM`].
    fn log_bounds(&self, stream: StreamId) -> Result<Option<Bounds>, ReadError>;
}

/// The size of an operation in a batch: keys, values and an overhead per row.
pub fn op_bytes(op: &JournalOp) -> usize {
    match op {
        JournalOp::Write(writes) => 16 + writes.iter().map(write_bytes).sum::<usize>(),
        JournalOp::Append { bytes, .. } => 32 + bytes.len(),
        JournalOp::Truncate { .. } | JournalOp::Trim { .. } => 32,
        JournalOp::PutHard { key, value } => 16 + key.len() + value.len(),
        JournalOp::DeleteHard { key } => 16 + key.len(),
    }
}

pub(crate) fn write_bytes(write: &StateWrite) -> usize {
    8 + write.key.len() + write.value.as_ref().map_or(0, Bytes::len)
}

/// The exclusive upper bound of the keys with the prefix; `None` if unbounded.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Asserts the contract of a commit's operations. Roles validate client input, so a violation is a bug.
pub(crate) fn assert_contract(batch: &[JournalOp]) {
    for op in batch {
        match op {
            JournalOp::Write(writes) => assert_writes(writes),
            JournalOp::Append { stream, .. }
            | JournalOp::Truncate { stream, .. }
            | JournalOp::Trim { stream, .. } => assert_stream(*stream),
            JournalOp::PutHard { key, .. } | JournalOp::DeleteHard { key } => assert!(
                !key.is_empty() && key.len() <= MAX_HARD_KEY_BYTES,
                "the name of a hard state has {} bytes, must have 1 to {MAX_HARD_KEY_BYTES}",
                key.len()
            ),
        }
    }
}

pub(crate) fn assert_writes(writes: &[StateWrite]) {
    for StateWrite { table, key, .. } in writes {
        assert!(
            !key.is_empty() && key.len() <= MAX_KEY_BYTES,
            "a key of {table:?} has {} bytes, must have 1 to {MAX_KEY_BYTES}",
            key.len()
        );
    }
}

pub(crate) fn assert_stream(stream: StreamId) {
    assert!(
        stream != NODE_STREAM,
        "stream 0 is reserved: write rows with JournalOp::Write"
    );
}
