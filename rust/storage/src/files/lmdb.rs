//! Performs the tasks on files of a data directory and its LMDB store.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_core::store::Table;

use super::folder::{Folder, failed};
use super::format::{RowWriter, Sum};
use super::load::{Loader, verify};
use super::{Answer, BulkWriter, FileError, SLICE_BYTES, check};
use crate::frame::{self, HEADER_BYTES, Kind};
use crate::lmdb::View;

/// Bytes per read of a file.
const READ_BYTES: usize = 256 << 10;

/// Bytes that are copied between two checks whether the store is being closed.
const STOP_CHECK_BYTES: usize = 4 << 20;

/// Performs tasks, on any thread.
///
/// A copy first freezes the memtable's active layer, which is cheap, and pins the state while the memtable is locked. So
/// it sees a consistent snapshot of the state, the frozen layer and the few rows after it, and copies them without
/// blocking others.
pub struct LmdbFiles {
    rows: Arc<dyn View>,
    folder: Folder,
}

impl LmdbFiles {
    pub(crate) fn new(rows: Arc<dyn View>, folder: Folder) -> Self {
        LmdbFiles { rows, folder }
    }

    /// Performs a task to completion. Tasks of one owner must not be performed concurrently.
    ///
    /// # Errors
    /// [`FileError`]; after [`FileError::Failed`] the node must stop.
    pub fn perform(&self, task: &FileTask, state: &mut dyn BulkWriter) -> Answer {
        check(task)?;
        match task {
            FileTask::Save {
                file,
                table,
                prefix,
                marker,
            } => {
                let saved = self.save(*file, *table, prefix, marker, state);
                if saved.is_err() {
                    self.folder.forget(*file)?;
                }
                saved
            }
            FileTask::Read { file, offset, length } => {
                Ok(FileDone::Chunk(self.folder.read(*file, *offset, *length)?))
            }
            FileTask::Write { file, offset, bytes } => {
                self.folder.write(*file, *offset, bytes)?;
                Ok(FileDone::Written)
            }
            FileTask::Seal { file, size, checksum } => {
                let (size, checksum) = (*size, *checksum);
                let intact = self.folder.seal(*file, Sum { size, checksum })?;
                Ok(FileDone::Sealed { intact })
            }
            FileTask::Load {
                file,
                table,
                prefix,
                marker,
            } => self
                .load(*file, *table, prefix, marker, state)
                .map(|()| FileDone::Loaded),
            FileTask::Retain { owner, number } => {
                self.folder.retain(*owner, *number)?;
                Ok(FileDone::Retained)
            }
        }
    }

    fn save(
        &self,
        file: FileId,
        table: Table,
        prefix: &Bytes,
        marker: &Bytes,
        state: &dyn BulkWriter,
    ) -> Answer {
        let mut writer = RowWriter::new(self.folder.create(file)?, table);
        let mut found = None;
        let mut unchecked = 0;
        self.rows.copy(table, prefix, &mut |key, framed| {
            let content = frame::decode(Kind::Row, table as u8, key, framed);
            let content = content.map_err(|why| crate::error::ReadError::Corrupt {
                table,
                key: Bytes::copy_from_slice(key),
                why,
            })?;
            if key == marker {
                found = Some(Bytes::copy_from_slice(content));
            }
            unchecked += HEADER_BYTES + key.len() + content.len();
            if unchecked > STOP_CHECK_BYTES {
                unchecked = 0;
                if state.is_stopped() {
                    return Err(FileError::Stopped);
                }
            }
            writer.row(key, framed).map_err(written)
        })?;
        let (part, Sum { size, checksum }) = writer.finish().map_err(written)?;
        self.folder.publish(file, &part.target)?;
        Ok(FileDone::Saved {
            size,
            checksum,
            marker: found,
        })
    }

    fn load(
        &self,
        file: FileId,
        table: Table,
        prefix: &Bytes,
        marker: &Bytes,
        state: &mut dyn BulkWriter,
    ) -> Result<(), FileError> {
        let damaged = |damage| FileError::damaged(file, damage);
        let from = |file: File| BufReader::with_capacity(READ_BYTES, file);
        let whole = self.folder.whole(file)?;
        verify(from(whole), table, prefix.clone(), marker.clone(), SLICE_BYTES).map_err(damaged)?;
        let whole = self.folder.whole(file)?;
        let loader = Loader::new(from(whole), table, prefix.clone(), marker.clone(), SLICE_BYTES);
        let mut loader = loader.map_err(damaged)?;
        while let Some(change) = loader.next().map_err(damaged)? {
            while state.bulk(&change)? {
                if state.is_stopped() {
                    return Err(FileError::Stopped);
                }
            }
            if state.is_stopped() {
                return Err(FileError::Stopped);
            }
        }
        Ok(())
    }
}

fn written(error: std::io::Error) -> FileError {
    failed("write", std::path::Path::new("a file of rows"))(error)
}
