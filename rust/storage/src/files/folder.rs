//! The folder of a data directory in which the files are.
//!
//! ```text
//! DIR/snapshots/OWNER-NUMBER.rows   whole and durable
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

/// Bytes that are written before the system is asked to begin bringing them to the disk, and about its room.
const WRITEBACK_BYTES: u64 = 4 << 20;

const WHOLE: &str = "rows";
const PART: &str = "part";

/// The folder.
pub struct Folder {
    path: PathBuf,
    space: SpaceProbe,
    /// Free bytes of the file system that are left alone.
    reserve_bytes: u64,
}

impl Folder {
    /// Opens the folder, or creates it, and removes what was not whole.
    ///
    /// # Errors
    /// If the system refuses.
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

    /// Opens a whole file for reading.
    pub(super) fn whole(&self, file: FileId) -> Result<File, FileError> {
        open(File::options().read(true), &self.place(file, WHOLE), file)
    }

    /// A part of a whole file.
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

    /// Begins a file anew.
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

    /// Puts a part into a file that is being written.
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

    /// Makes a file whole and durable if it is what it should be, and says whether; else it is forgotten.
    pub(super) fn seal(&self, file: FileId, wanted: Sum) -> Result<bool, FileError> {
        let place = self.place(file, PART);
        let part = match open(File::options().read(true).write(true), &place, file) {
            // Sealed already, and the answer was lost in a crash.
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

    /// Makes a file durable and gives it its name.
    pub(super) fn publish(&self, file: FileId, part: &File) -> Result<(), FileError> {
        let (from, to) = (self.place(file, PART), self.place(file, WHOLE));
        part.sync_all().map_err(failed("sync", &from))?;
        fs::rename(&from, &to).map_err(failed("rename", &from))?;
        self.sync()
    }

    /// Forgets what was written of a file.
    pub(super) fn forget(&self, file: FileId) -> Result<(), FileError> {
        let place = self.place(file, PART);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &place)(error)),
            _ => Ok(()),
        }
    }

    /// Forgets all files of an owner but one.
    pub(super) fn keep(&self, owner: u64, number: Option<u64>) -> Result<(), FileError> {
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

    /// Refuses to use the bytes that the journal and the state are to have.
    fn check_room(&self, bytes: u64) -> Result<(), FileError> {
        let available = (self.space)(&self.path).map_err(failed("inspect the file system of", &self.path))?;
        if available < self.reserve_bytes.saturating_add(bytes) {
            return Err(FileError::Full);
        }
        Ok(())
    }
}

/// A file that is being written from beginning to end.
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

/// What the system refused: no room is an answer, anything else ends the node.
pub(super) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::Full,
        _ => FileError::Failed(format!("{action} {}: {error}", path.display())),
    }
}
