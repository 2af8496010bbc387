//! The folder of the files in a data directory.
//!
//! ```text
//! DIR/snapshots/OWNER-NUMBER.rows   complete and durable
//! DIR/snapshots/OWNER-NUMBER.part   being written; removed when the store is opened
//! ```
//!
//! Owner and number are sixteen hexadecimal digits each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_core::files::FileId;

use super::FileError;
use super::format::{self, Sum};
use crate::datadir::{create_dir_durably, io_error};
use crate::error::OpenError;
use crate::lmdb::SpaceProbe;
use crate::sys;

/// Bytes after which writeback is started and free space is checked.
const WRITEBACK_BYTES: u64 = 4 << 20;

const WHOLE: &str = "rows";
const PART: &str = "part";

/// The folder.
pub struct Folder {
    path: PathBuf,
    space: SpaceProbe,
    /// Free bytes of the file system that are reserved.
    reserve_bytes: u64,
}

impl Folder {
    /// Opens or creates the folder, and removes partial files.
    ///
    /// # Errors
    /// If the operating system returns an error.
    pub fn open(path: PathBuf, space: SpaceProbe, reserve_bytes: u64) -> Result<Self, OpenError> {
        create_dir_durably(&path)?;
        for entry in fs::read_dir(&path).map_err(io_error("read", &path))? {
            let found = entry.map_err(io_error("read", &path))?.path();
            if found.extension().is_some_and(|extension| extension == PART) {
                fs::remove_file(&found).map_err(io_error("remove", &found))?;
            }
        }
        Ok(Folder {
            path,
            space,
            reserve_bytes,
        })
    }

    fn place(&self, file: FileId, extension: &str) -> PathBuf {
        let FileId { owner, number } = file;
        self.path.join(format!("{owner:016x}-{number:016x}.{extension}"))
    }

    /// Opens a complete file for reading.
    pub(super) fn whole(&self, file: FileId) -> Result<File, FileError> {
        open(File::options().read(true), &self.place(file, WHOLE), file)
    }

    /// Reads a part of a complete file.
    pub(super) fn read(&self, file: FileId, offset: u64, length: u32) -> Result<Bytes, FileError> {
        let whole = self.whole(file)?;
        let read = || -> io::Result<Vec<u8>> {
            let left = whole.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; left.min(u64::from(length)) as usize];
            whole.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(FileError::Damaged {
                file,
                why: error.to_string(),
            }),
        }
    }

    /// Starts a file, discarding an earlier one.
    pub(super) fn create(&self, file: FileId) -> Result<Part<'_>, FileError> {
        let place = self.place(file, PART);
        self.check_room(0)?;
        let opened = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&place);
        Ok(Part {
            folder: self,
            target: opened.map_err(failed("create", &place))?,
            written: 0,
        })
    }

    /// Writes a part of a partial file.
    pub(super) fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let place = self.place(file, PART);
        let target = match offset {
            0 => self.create(file)?.target,
            _ => open(File::options().write(true), &place, file)?,
        };
        let length = target.metadata().map_err(failed("inspect", &place))?.len();
        if offset > length {
            return Err(FileError::out_of_order(file, offset, length));
        }
        self.check_room(bytes.len() as u64)?;
        target
            .write_all_at(bytes, offset)
            .map_err(failed("write", &place))?;
        let end = offset + bytes.len() as u64;
        if offset / WRITEBACK_BYTES != end / WRITEBACK_BYTES {
            sys::begin_writeback(&target);
        }
        Ok(())
    }

    /// Completes a file durably if it has the expected size and checksum, otherwise removes it; returns whether it matched.
    pub(super) fn seal(&self, file: FileId, wanted: Sum) -> Result<bool, FileError> {
        let place = self.place(file, PART);
        let part = match open(File::options().read(true).write(true), &place, file) {
            // Sealed already; the response was lost in a crash.
            Err(FileError::NotFound(_)) => return Ok(self.sum(&self.whole(file)?)? == wanted),
            other => other?,
        };
        if self.sum(&part)? != wanted {
            self.forget(file)?;
            return Ok(false);
        }
        self.publish(file, &part)?;
        Ok(true)
    }

    fn sum(&self, file: &File) -> Result<Sum, FileError> {
        format::sum(file).map_err(failed("read", &self.path))
    }

    /// Syncs a file and renames it to its final name.
    pub(super) fn publish(&self, file: FileId, part: &File) -> Result<(), FileError> {
        let (from, to) = (self.place(file, PART), self.place(file, WHOLE));
        part.sync_all().map_err(failed("sync", &from))?;
        fs::rename(&from, &to).map_err(failed("rename", &from))?;
        self.sync()
    }

    /// Removes a partial file.
    pub(super) fn forget(&self, file: FileId) -> Result<(), FileError> {
        let place = self.place(file, PART);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &place)(error)),
            _ => Ok(()),
        }
    }

    /// Removes all files of an owner but one.
    pub(super) fn retain(&self, owner: u64, number: Option<u64>) -> Result<(), FileError> {
        let owned = format!("{owner:016x}-");
        let kept = number.map(|number| format!("{owned}{number:016x}."));
        let mut removed = false;
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))? {
            let entry = entry.map_err(failed("read", &self.path))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&owned) && !kept.as_ref().is_some_and(|kept| name.starts_with(kept)) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
                removed = true;
            }
        }
        if removed { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), FileError> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync", &self.path))
    }

    /// Fails if the space reserved for journal and state would be used.
    fn check_room(&self, bytes: u64) -> Result<(), FileError> {
        let available = (self.space)(&self.path).map_err(failed("inspect the file system of", &self.path))?;
        if available < self.reserve_bytes.saturating_add(bytes) {
            return Err(FileError::Full);
        }
        Ok(())
    }
}

/// A file that is being written sequentially.
pub(super) struct Part<'a> {
    folder: &'a Folder,
    pub(super) target: File,
    written: u64,
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.target.write(bytes)?;
        let before = self.written;
        self.written += written as u64;
        if before / WRITEBACK_BYTES != self.written / WRITEBACK_BYTES {
            sys::begin_writeback(&self.target);
            if self.folder.check_room(WRITEBACK_BYTES) == Err(FileError::Full) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(options: &OpenOptions, path: &Path, file: FileId) -> Result<File, FileError> {
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileError::NotFound(file),
        _ => failed("open", path)(error),
    })
}

/// Converts an error of the operating system: no space is an answer, anything else ends the node.
pub(super) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::Full,
        _ => FileError::Failed(format!("{action} {}: {error}", path.display())),
    }
}
