//! Files of rows: a consistent copy of a group's rows, sent to a node that lacks them and put in place there.
//!
//! ```text
//! a role ── task ──► [files-quick]  Read, Write, Keep             one after the other
//!               └──► [files-slow-n] Save, Seal, Load              two side by side
//!                        │ 1 MiB at a time
//!                        ▼
//!                    [storage-state]  between two rounds of applying
//! ```
//!
//! What each task does stands on [`FileTask`]. The tasks of one owner are performed in their order, those of different
//! owners side by side ([`FileThreads`]). Nothing of this runs on the thread that commits the journal, and a load takes
//! the state's one writer for a slice at a time: commits, votes, and the applying of other groups' rows go on in between.
//!
//! * **Save** pins one moment of state and memtable ([`LmdbFiles`] says how) and copies it at the speed of memory: while
//!   the read transaction is open, no page that it sees can be used again. Only then the file is synced.
//! * A file is written under another name and gets its own when it is whole and durable. What a crash leaves of the
//!   others is removed when the store is opened.
//! * **Load** checks the whole file first, so a damaged one changes nothing. Then it goes past journal and memtable:
//!   every slice is a transaction of the state, durable in order. The marker row is deleted with the first and written by
//!   the last one: if it is there, all rows are.
//!
//! The format is described in [`format`]. [`MemoryFiles`] is the same for the simulator, step by step.

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

/// About how many bytes of rows one transaction of a load changes.
pub const SLICE_BYTES: usize = 1 << 20;

/// Whoever brings bulk changes to the state's writer.
pub trait BulkWriter {
    /// Has the change made; `true` if it must be asked for again to be complete.
    ///
    /// # Errors
    /// [`FileError::Full`], and nothing was changed; [`FileError::Failed`]; [`FileError::Stopped`].
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError>;

    /// Whether there is no point in going on, since the store is being closed.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// A store that this thread drives itself.
pub struct Direct<'a>(pub &'a mut dyn Store);

impl BulkWriter for Direct<'_> {
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError> {
        Ok(self.0.bulk(change)?)
    }
}

/// Why a task was not done.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum FileError {
    /// There is no such file, or it is not sealed, or it has not begun.
    #[error("file {} of group {:#x} is not there: begin it again", .0.number, .0.owner)]
    NotFound(FileId),
    /// There is no room. A load may have been cut short by this: its marker row is absent then.
    #[error("no space left for the file or its rows: free disk space, or raise map_size_bytes")]
    Full,
    /// A file is not what was written.
    #[error("file {} of group {:#x} is damaged ({why}): have it sent again", file.number, file.owner)]
    Damaged {
        /// The file.
        file: FileId,
        /// What is wrong with it.
        why: String,
    },
    /// A row is not what was written.
    #[error("{0}")]
    Corrupt(ReadError),
    /// The task makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The disk or the store failed: the node must stop.
    #[error("{0}")]
    Failed(String),
    /// The store is being closed: nobody is to be told anything.
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
            "a part at {offset}, but file {number} of group {owner:#x} has {length} bytes: write its parts in their order"
        ))
    }

    /// What the role is told; `None` if nobody may be told anything, since the node is about to end.
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

/// How a task ended.
pub type Answer = Result<FileDone, FileError>;

/// Refuses a task whose marker is not one of its rows: then nothing would tell a load that was cut short.
fn check(task: &FileTask) -> Result<(), FileError> {
    match task {
        FileTask::Save { prefix, marker, .. } | FileTask::Load { prefix, marker, .. }
            if marker.is_empty() || !marker.starts_with(prefix) =>
        {
            Err(FileError::Invalid(format!(
                "the marker {marker:?} is not a key with prefix {prefix:?}: name a row of the group's own"
            )))
        }
        _ => Ok(()),
    }
}
