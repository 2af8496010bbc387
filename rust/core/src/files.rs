//! Files of rows: transfer a group's whole state between nodes.
//!
//! A file holds all rows of a table with one prefix, as of one moment. It is created by [`FileTask::Save`],
//! read and sent in chunks, assembled on the receiver by [`FileTask::Write`] and [`FileTask::Seal`], and
//! replaces the rows there with [`FileTask::Load`]. Only rows enter and leave a file: its format is the
//! store's own, the same on every node.
//!
//! A role uses the effect `Files`; its result is the event `Files`. Tasks of one owner are performed in
//! order; those of different owners concurrently.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::Table;

/// The id of a file on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Its owner: a group.
    pub owner: u64,
    /// Its number.
    pub number: u64,
}

/// A file operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileTask {
    /// Copy all rows of a table with a prefix to a new file, durably. The copy is as of one moment, not
    /// before the effect was performed: it includes each earlier `ApplyRows` effect entirely, and a later one
    /// entirely or not at all. The value of the row `marker` in the copy, and in the result, identifies the
    /// moment.
    Save {
        /// The file; an existing one is replaced.
        file: FileId,
        /// The table.
        table: Table,
        /// The prefix of the rows' keys.
        prefix: Bytes,
        /// The key of the row to return; it begins with the prefix.
        marker: Bytes,
    },
    /// Read a chunk of a file that was saved or sealed.
    Read {
        /// The file.
        file: FileId,
        /// The offset in bytes.
        offset: u64,
        /// The length in bytes; fewer at the end of the file.
        length: u32,
    },
    /// Write a chunk into a file. Not durable before [`Seal`](FileTask::Seal): a crash deletes an unsealed
    /// file.
    Write {
        /// The file.
        file: FileId,
        /// The offset in bytes: not beyond the current end. 0 starts the file over.
        offset: u64,
        /// The chunk.
        bytes: Bytes,
    },
    /// All chunks are written: verify size and checksum of the whole, and make it durable. A file that fails
    /// is deleted.
    Seal {
        /// The file.
        file: FileId,
        /// Its size in bytes.
        size: u64,
        /// XXH3, 64 bits, over all bytes.
        checksum: u64,
    },
    /// Replace all rows of the table with this prefix by the rows of a file that was saved or sealed: in
    /// slices, between other work. The row `marker` is deleted first and written last, so a crash in the
    /// middle (or a full disk) leaves it absent, beside any part of the other rows; then the role loads
    /// again. On completion, everything is durable. A damaged file is detected before anything is changed.
    ///
    /// Until completion the role neither applies rows with this prefix nor relies on reading them.
    Load {
        /// The file.
        file: FileId,
        /// The table from which it was saved.
        table: Table,
        /// The prefix of the rows' keys, as when it was saved.
        prefix: Bytes,
        /// The key of the row that is present only if all are; it begins with the prefix.
        marker: Bytes,
    },
    /// Delete all files of the owner except this one, if any.
    Retain {
        /// The owner.
        owner: u64,
        /// The file to keep.
        number: Option<u64>,
    },
}

impl FileTask {
    /// The owner of the file.
    pub fn owner(&self) -> u64 {
        match self {
            FileTask::Save { file, .. }
            | FileTask::Read { file, .. }
            | FileTask::Write { file, .. }
            | FileTask::Seal { file, .. }
            | FileTask::Load { file, .. } => file.owner,
            FileTask::Retain { owner, .. } => *owner,
        }
    }
}

/// The result of a completed file task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileDone {
    /// The file is durable.
    Saved {
        /// Its size in bytes.
        size: u64,
        /// XXH3, 64 bits, over all bytes.
        checksum: u64,
        /// The value of its row `marker`.
        marker: Option<Bytes>,
    },
    /// The chunk; shorter than requested at the end of the file.
    Chunk(Bytes),
    /// The chunk is written.
    Written,
    /// The file was verified.
    Sealed {
        /// Whether it is as announced, and durable. If not, it is deleted.
        intact: bool,
    },
    /// The rows are replaced, durably.
    Loaded,
    /// The other files are deleted.
    Retained,
}
