//! Files of rows: a consistent copy of a group's rows, which is sent to another node and loaded there.
//!
//! ```text
//! a role ── task ──► [files-quick]  Read, Write, Retain           sequential
//!               └──► [files-slow-n] Save, Seal, Load              two threads
//!                        │ 1 MiB at a time
//!                        ▼
//!                    [storage-state]  between two rounds of applying
//! ```
//!
//! [`FileTask`] documents each task. The tasks of one owner are performed in order, those of different owners
//! concurrently ([`FileThreads`]). No task runs on the thread that commits the journal, and a load uses the state's single
//! writer one slice at a time: commits, votes, and the applying of other groups' rows continue in between.
//!
//! * **Save** pins a snapshot of state and memtable (see [`LmdbFiles`]) and copies it at memory speed: while the read
//!   transaction is open, no page that it sees can be reused. Only then the file is synced.
//! * A file is written under a temporary name and renamed when it is complete and durable. Partial files left by a crash
//!   are removed when the store is opened.
//! * **Load** checks the whole file first, so a damaged file changes nothing. Then it bypasses journal and memtable: every
//!   slice is a transaction of the state, durable in order. The first transaction deletes the marker row and the last one
//!   writes it: if it exists, so do all rows.
//!
//! The format is described in [`format`]. [`MemoryFiles`] is the implementation for the simulator, in single steps.

pub mod folder;
pub mod format;
mod lmdb;
mod load;
mod memory;
mod threads;

use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileId, FileTask};
use thiserror::Error as ThisError;

use self::format::{Damage, Slice};
pub use self::lmdb::LmdbFiles;
pub use self::memory::{MemoryFiles, Work};
pub use self::threads::{FileThreads, OnAnswer};
use crate::bulk::Bulk;
use crate::error::{CommitError, ReadError};
use crate::store::Store;

/// The approximate size of one transaction of a load, in bytes of rows.
pub const SLICE_BYTES: usize = 1 << 20;

/// Passes bulk changes to the state's writer.
pub trait BulkWriter {
    /// Makes a change; `true` if it must be repeated to be complete.
    ///
    /// # Errors
    /// [`FileError::Full`] if nothing was changed; [`FileError::Failed`]; [`FileError::Stopped`].
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError>;

    /// Whether the store is being closed, so that the task is to be aborted.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// A store driven by the current thread.
pub struct Direct<'a>(pub &'a mut dyn Store);

impl BulkWriter for Direct<'_> {
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError> {
        Ok(self.0.bulk(change)?)
    }
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum FileError {
    /// The file does not exist, is not sealed, or has not been started.
    #[error("file {} of group {:#x} not found: start it again", .0.number, .0.owner)]
    NotFound(FileId),
    /// No space. A load may be incomplete: its marker row is absent then.
    #[error("no space left for the file or its rows: free disk space, or raise map_size_bytes")]
    Full,
    /// A file is corrupt.
    #[error("file {} of group {:#x} is damaged ({why}): request it again", file.number, file.owner)]
    Damaged {
        /// The file.
        file: FileId,
        /// The details.
        why: String,
    },
    /// A row is corrupt.
    #[error("{0}")]
    Corrupt(ReadError),
    /// The task is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The disk or the store failed: the node must stop.
    #[error("{0}")]
    Failed(String),
    /// The store is being closed: the task is not answered.
    #[error("the store is being closed")]
    Stopped,
}

impl FileError {
    fn damaged(file: FileId, damage: Damage) -> Self {
        let why = match damage {
            Damage::Content(why) => why,
            Damage::Io(error) => error.to_string(),
        };
        FileError::Damaged { file, why }
    }

    /// A part that would leave a gap.
    fn out_of_order(file: FileId, offset: u64, length: u64) -> Self {
        let FileId { owner, number } = file;
        FileError::Invalid(format!(
            "a part at {offset}, but file {number} of group {owner:#x} has {length} bytes: write its parts in order"
        ))
    }

    /// The error for the role; `None` if the task must not be answered because the node is about to end.
    pub fn to_role_error(&self) -> Option<Error> {
        let text = self.to_string();
        match self {
            FileError::NotFound(_) => Some(Error::NotFound(text)),
            FileError::Full => Some(Error::StorageFull(text)),
            FileError::Damaged { .. } | FileError::Corrupt(_) => Some(Error::CorruptRecord(text)),
            FileError::Invalid(_) => Some(Error::InvalidArgument(text)),
            FileError::Failed(_) | FileError::Stopped => None,
        }
    }
}

impl From<ReadError> for FileError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Failed(why) => FileError::Failed(why),
            corrupt => FileError::Corrupt(corrupt),
        }
    }
}

impl From<CommitError> for FileError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full => FileError::Full,
            CommitError::Fatal(why) => FileError::Failed(why),
        }
    }
}

/// The result of a task.
pub type Answer = Result<FileDone, FileError>;

/// Rejects a task whose marker is not one of its rows, because an incomplete load would not be detected.
fn check(task: &FileTask) -> Result<(), FileError> {
    match task {
        FileTask::Save { prefix, marker, .. } | FileTask::Load { prefix, marker, .. }
            if marker.is_empty() || !marker.starts_with(prefix) =>
        {
            Err(FileError::Invalid(format!(
                "the marker {marker:?} does not have the prefix {prefix:?}: use a row of the group"
            )))
        }
        _ => Ok(()),
    }
}
