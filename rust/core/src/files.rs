//! Files of rows: how a group's state travels whole, from the node that has it to one that needs it.
//!
//! A file holds all rows of a table that begin with one prefix, as they were at one moment. It is made by
//! [`FileTask::Save`], read in parts and sent, put together again on the other side by [`FileTask::Write`] and
//! [`FileTask::Seal`], and takes the place of the rows there with [`FileTask::Load`]. Only rows leave and enter a file:
//! what is in it is the store's own affair, the same on every node.
//!
//! A role asks with the effect `Files` and is answered with the event `Files`. Tasks of one owner are performed one after the other, in the order
//! in which they were asked for; those of different owners side by side.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::Table;

/// The name of a file on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Whose it is: a group.
    pub owner: u64,
    /// Which of the owner's.
    pub number: u64,
}

/// Something to do with a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileTask {
    /// Copy all rows of a table that begin with a prefix to a new file, durably. The copy is one moment's view, not
    /// before the effect was performed: each `ApplyRows` effect that was performed before is
    /// in it whole, a later one whole or not at all. The value of the row `marker` that is in the copy, and in the
    /// answer, tells which.
    Save {
        /// The file; one of this name is replaced.
        file: FileId,
        /// Of which table.
        table: Table,
        /// How the keys of the rows begin.
        prefix: Bytes,
        /// The key of the row that the answer is to have; it begins with the prefix.
        marker: Bytes,
    },
    /// A part of a file that was saved or sealed.
    Read {
        /// The file.
        file: FileId,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its length in bytes; it is shorter where the file ends.
        length: u32,
    },
    /// Put a part into a file. Not durable before [`Seal`](FileTask::Seal): a crash takes a file that is not sealed.
    Write {
        /// The file.
        file: FileId,
        /// Where the part begins, in bytes: not behind the end of what is there. 0 begins the file anew.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
    /// All parts are there: check size and checksum over the whole, and make it durable. A file that does not pass is
    /// forgotten.
    Seal {
        /// The file.
        file: FileId,
        /// Bytes it must have.
        size: u64,
        /// XXH3, 64 bits, over all of it.
        checksum: u64,
    },
    /// Put the rows of a file that was saved or sealed in the place of all rows of the table with this prefix: in
    /// slices, between other work. The row `marker` goes first and comes last, so a crash in the middle (or a
    /// disk without room) leaves it absent, beside any part of the other rows; then the role loads again. Once this is
    /// answered, everything survives a crash. A damaged file is found out before anything is changed.
    ///
    /// Until the answer the role neither derives rows with this prefix nor relies on reading them.
    Load {
        /// The file.
        file: FileId,
        /// Into which table: the one that it was saved from.
        table: Table,
        /// How the keys of the rows begin: as when it was saved.
        prefix: Bytes,
        /// The key of the row that is there only if all are; it begins with the prefix.
        marker: Bytes,
    },
    /// Forget all files of the owner but this one, if any.
    Retain {
        /// Whose.
        owner: u64,
        /// The one to keep.
        number: Option<u64>,
    },
}

impl FileTask {
    /// Whose files it is about.
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

/// That it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileDone {
    /// The file is there, durably.
    Saved {
        /// Its bytes.
        size: u64,
        /// XXH3, 64 bits, over all of them.
        checksum: u64,
        /// The value of the row `marker` in it.
        marker: Option<Bytes>,
    },
    /// The part: what was asked for, or less where the file ends.
    Chunk(Bytes),
    /// The part is in.
    Written,
    /// The file was checked.
    Sealed {
        /// Whether it is what was announced, and durable. If not, it is forgotten.
        intact: bool,
    },
    /// The rows are in place, durably.
    Loaded,
    /// The others are forgotten.
    Retained,
}
