//! The tasks in memory, for the simulator: in single steps, so that a simulated crash can happen between them.

use std::collections::BTreeMap;
use std::io::Cursor;

use bytes::Bytes;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_core::store::Table;

use super::format::{Damage, RowWriter, Sum, sum};
use super::load::{Loader, verify};
use super::{Answer, FileError, check};
use crate::bulk::Bulk;
use crate::frame::{self, Kind};
use crate::memory::MemoryStore;
use crate::store::Store;

/// The files of a disk, beside its store. A clone shares only immutable bytes with the original.
#[derive(Clone, Debug)]
pub struct MemoryFiles {
    slice_bytes: usize,
    whole: BTreeMap<FileId, Bytes>,
    parts: BTreeMap<FileId, Vec<u8>>,
}

/// A task in progress.
pub struct Work {
    task: FileTask,
    load: Option<Load>,
}

struct Load {
    loader: Loader<Cursor<Bytes>>,
    /// The change to repeat until it is complete.
    change: Option<Bulk>,
}

impl Work {
    /// A task that has not started.
    pub fn new(task: FileTask) -> Self {
        Work { task, load: None }
    }

    /// The task.
    pub fn task(&self) -> &FileTask {
        &self.task
    }
}

impl MemoryFiles {
    /// Without files. A load changes about `slice_bytes` of rows per step.
    pub fn new(slice_bytes: usize) -> Self {
        MemoryFiles {
            slice_bytes,
            whole: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// The number of files of an owner, complete or partial.
    pub fn count(&self, owner: u64) -> usize {
        let whole = self.whole.keys().filter(|file| file.owner == owner);
        let parts = self.parts.keys().filter(|file| file.owner == owner);
        whole.count() + parts.count()
    }

    /// Power failure: partial files are lost.
    pub fn crash(&mut self) {
        self.parts.clear();
    }

    /// Flips a bit of a complete file, to simulate corruption.
    ///
    /// # Panics
    /// If there is no such file, or the place is beyond its end.
    pub fn corrupt(&mut self, file: FileId, place: usize) {
        let bytes = self.whole.get_mut(&file).expect("the file exists");
        let mut changed = bytes.to_vec();
        changed[place] ^= 4;
        *bytes = changed.into();
    }

    /// Performs a step of the task, atomically and durably; returns the result when it is done. All but loads take one step.
    pub fn step(&mut self, work: &mut Work, store: &mut MemoryStore) -> Option<Answer> {
        if let Err(error) = check(&work.task) {
            return Some(Err(error));
        }
        match &work.task {
            FileTask::Load {
                file,
                table,
                prefix,
                marker,
            } => {
                let (file, table) = (*file, *table);
                if work.load.is_none() {
                    match self.begin_load(file, table, prefix, marker) {
                        Ok(load) => work.load = Some(load),
                        Err(error) => return Some(Err(error)),
                    }
                }
                let load = work.load.as_mut().expect("the load has started");
                match load.step(store) {
                    Ok(true) => None,
                    Ok(false) => Some(Ok(FileDone::Loaded)),
                    Err(StepError::Damage(damage)) => Some(Err(damaged(file)(damage))),
                    Err(StepError::Store(error)) => Some(Err(error)),
                }
            }
            task => Some(self.perform(task, store)),
        }
    }

    fn perform(&mut self, task: &FileTask, store: &MemoryStore) -> Answer {
        match task {
            FileTask::Save {
                file,
                table,
                prefix,
                marker,
            } => self.save(*file, *table, prefix, marker, store),
            FileTask::Read { file, offset, length } => {
                let bytes = self.whole(*file)?;
                let start = bytes.len().min(usize::try_from(*offset).unwrap_or(usize::MAX));
                let end = bytes.len().min(start.saturating_add(*length as usize));
                Ok(FileDone::Chunk(bytes.slice(start..end)))
            }
            FileTask::Write { file, offset, bytes } => {
                self.write(*file, *offset, bytes, store)?;
                Ok(FileDone::Written)
            }
            FileTask::Seal { file, size, checksum } => {
                let wanted = Sum {
                    size: *size,
                    checksum: *checksum,
                };
                let intact = match self.parts.remove(file) {
                    None => sum_of(&self.whole(*file)?) == wanted,
                    Some(bytes) => {
                        let intact = sum_of(&bytes) == wanted;
                        if intact {
                            self.whole.insert(*file, bytes.into());
                        }
                        intact
                    }
                };
                Ok(FileDone::Sealed { intact })
            }
            FileTask::Retain { owner, number } => {
                let kept = |file: &FileId| file.owner != *owner || Some(file.number) == *number;
                self.whole.retain(|file, _| kept(file));
                self.parts.retain(|file, _| kept(file));
                Ok(FileDone::Retained)
            }
            FileTask::Load { .. } => unreachable!("a load takes several steps"),
        }
    }

    fn save(
        &mut self,
        file: FileId,
        table: Table,
        prefix: &Bytes,
        marker: &Bytes,
        store: &MemoryStore,
    ) -> Answer {
        let rows = store.rows(table, prefix)?;
        let mut writer = RowWriter::new(Vec::new(), table);
        let mut framed = Vec::new();
        for (key, value) in &rows {
            framed.clear();
            frame::encode(&mut framed, Kind::Row, table as u8, key, value);
            writer.row(key, &framed).expect("writing to memory succeeds");
        }
        let (bytes, Sum { size, checksum }) = writer.finish().expect("writing to memory succeeds");
        if !store.has_room(bytes.len()) {
            return Err(FileError::Full);
        }
        self.parts.remove(&file);
        self.whole.insert(file, bytes.into());
        let marker = rows.into_iter().find(|(key, _)| key == marker);
        Ok(FileDone::Saved {
            size,
            checksum,
            marker: marker.map(|(_, value)| value),
        })
    }

    fn write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        store: &MemoryStore,
    ) -> Result<(), FileError> {
        if !store.has_room(bytes.len()) {
            return Err(FileError::Full);
        }
        let part = match offset {
            0 => {
                let part = self.parts.entry(file).or_default();
                part.clear();
                part
            }
            _ => self.parts.get_mut(&file).ok_or(FileError::NotFound(file))?,
        };
        if offset > part.len() as u64 {
            return Err(FileError::out_of_order(file, offset, part.len() as u64));
        }
        let start = offset as usize;
        let within = bytes.len().min(part.len() - start);
        part[start..start + within].copy_from_slice(&bytes[..within]);
        part.extend_from_slice(&bytes[within..]);
        Ok(())
    }

    fn begin_load(
        &self,
        file: FileId,
        table: Table,
        prefix: &Bytes,
        marker: &Bytes,
    ) -> Result<Load, FileError> {
        let from = Cursor::new(self.whole(file)?);
        let (prefix, marker, slice) = (prefix.clone(), marker.clone(), self.slice_bytes);
        verify(from.clone(), table, prefix.clone(), marker.clone(), slice).map_err(damaged(file))?;
        let loader = Loader::new(from, table, prefix, marker, slice).map_err(damaged(file))?;
        Ok(Load { loader, change: None })
    }

    fn whole(&self, file: FileId) -> Result<Bytes, FileError> {
        self.whole.get(&file).cloned().ok_or(FileError::NotFound(file))
    }
}

enum StepError {
    Damage(Damage),
    Store(FileError),
}

impl Load {
    /// Makes one change; `false` if none was left.
    fn step(&mut self, store: &mut MemoryStore) -> Result<bool, StepError> {
        if self.change.is_none() {
            self.change = self.loader.next().map_err(StepError::Damage)?;
        }
        let Some(change) = &self.change else {
            return Ok(false);
        };
        if !store
            .bulk(change)
            .map_err(|error| StepError::Store(error.into()))?
        {
            self.change = None;
        }
        Ok(true)
    }
}

fn damaged(file: FileId) -> impl Fn(Damage) -> FileError + Copy {
    move |damage| FileError::damaged(file, damage)
}

fn sum_of(bytes: &[u8]) -> Sum {
    sum(bytes).expect("memory can be read")
}
