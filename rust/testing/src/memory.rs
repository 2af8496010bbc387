//! The in-memory store of tests: the [contents](Contents) of a store, and files of rows.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_core::store::contents::Contents;
use quorate_core::store::{JournalOp, Query, Rows, StateWrite, StreamId, Table};
use xxhash_rust::xxh3::xxh3_64 as checksum;

use crate::Store;

/// The most entries per page of a log: few, so that paging is tested.
const PAGE_ENTRIES: u32 = 50;
/// The most rows per step of a load: few, so that crashes interrupt loads.
const LOADED_ROWS: usize = 5;

/// A store and its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// Rows, logs and hard states.
    pub contents: Contents,
    files: BTreeMap<FileId, File>,
}

/// A file, and whether it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct File {
    bytes: Vec<u8>,
    sealed: bool,
}

/// A task and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    task: FileTask,
    loading: Option<Loading>,
}

impl From<FileTask> for Work {
    fn from(task: FileTask) -> Self {
        Work { task, loading: None }
    }
}

/// The rows of a file that is being loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Loading {
    rows: VecDeque<(Bytes, Bytes)>,
    marker: Option<(Bytes, Bytes)>,
}

impl Store for Memory {
    type Op = JournalOp;
    type Rows = Vec<StateWrite>;
    type Query = Query;
    type Answer = Result<Rows, Error>;
    type Task = Work;
    type Done = Result<FileDone, Error>;

    fn apply(&mut self, op: &JournalOp) {
        self.contents.perform(op.clone());
    }

    fn takes_away(op: &JournalOp) -> bool {
        op.takes_away()
    }

    fn apply_rows(&mut self, rows: Vec<StateWrite>) {
        self.contents.apply_rows(rows);
    }

    fn flush(&mut self) {
        self.contents.flush(self.contents.flushed() + 1);
    }

    fn crash(&mut self) {
        self.contents.drop_unflushed();
        self.files.retain(|_, file| file.sealed);
    }

    fn read(&self, query: &Query) -> Result<Rows, Error> {
        let mut query = query.clone();
        if let Query::Log { limit_rows, .. } = &mut query {
            *limit_rows = PAGE_ENTRIES.min(*limit_rows);
        }
        self.contents
            .answer(&query)
            .map_err(|_| Error::CorruptRecord("checksum mismatch".to_owned()))
    }

    fn step(&mut self, work: &mut Work, full: bool) -> Option<Result<FileDone, Error>> {
        let Work { task, loading } = work;
        match task {
            FileTask::Load { .. } if full => Some(Err(Error::StorageFull("no room for rows".to_owned()))),
            FileTask::Load {
                file,
                table,
                prefix,
                marker,
            } => match loading {
                Some(loading) => self.load(*table, loading).then_some(Ok(FileDone::Loaded)),
                None => match self.begin_load(*file, *table, prefix, marker) {
                    Ok(begun) => {
                        *loading = Some(begun);
                        None
                    }
                    Err(error) => Some(Err(error)),
                },
            },
            FileTask::Save { .. } | FileTask::Write { .. } if full => {
                Some(Err(Error::StorageFull("no room for a file".to_owned())))
            }
            task => Some(self.perform(task)),
        }
    }

    fn flushes(work: &Work) -> bool {
        matches!(work.task, FileTask::Load { .. })
    }
}

fn missing() -> Error {
    Error::NotFound("no such file".to_owned())
}

impl Memory {
    /// The contents after a crash.
    pub fn flushed(&self) -> Contents {
        let mut contents = self.contents.clone();
        contents.drop_unflushed();
        contents
    }

    /// The numbers of the files.
    pub fn files(&self) -> Vec<u64> {
        self.files.keys().map(|file| file.number).collect()
    }

    /// Adds an unused file.
    pub fn litter(&mut self, file: FileId) {
        let bytes = Vec::new();
        self.files.insert(file, File { bytes, sealed: true });
    }

    /// Removes an entry of a stream, to simulate data loss.
    pub fn lose_entry(&mut self, stream: StreamId, position: u64) {
        let others = self.contents.log(stream, position, usize::MAX, usize::MAX);
        self.contents.perform(JournalOp::Truncate {
            stream,
            from: position,
        });
        for (position, bytes) in others.into_iter().skip_while(|(found, _)| *found == position) {
            self.contents.perform(JournalOp::Append {
                stream,
                position,
                bytes,
            });
        }
    }

    /// Corrupts a byte of every file.
    pub fn corrupt_files(&mut self) {
        for file in self.files.values_mut() {
            file.bytes[0] ^= 1;
        }
    }

    /// Corrupts a byte of a row, undetected by its checksum.
    pub fn corrupt_row(&mut self, table: Table, key: &Bytes) {
        if let Some(value) = self.contents.value(table, key) {
            let mut bytes = value.to_vec();
            bytes[0] ^= 0x80;
            self.write(table, vec![(key.clone(), Some(bytes.into()))]);
        }
    }

    fn sealed(&self, file: FileId) -> Result<&File, Error> {
        let file = self.files.get(&file).filter(|file| file.sealed);
        file.ok_or_else(missing)
    }

    fn perform(&mut self, task: &FileTask) -> Result<FileDone, Error> {
        match task {
            FileTask::Save {
                file,
                table,
                prefix,
                marker,
            } => {
                let rows: Vec<_> = self
                    .contents
                    .rows_from(*table, prefix)
                    .take_while(|(key, _)| key.starts_with(prefix))
                    .collect();
                let bytes = postcard::to_stdvec(&rows).expect("rows can be encoded");
                let (size, checksum) = (bytes.len() as u64, checksum(&bytes));
                self.files.insert(*file, File { bytes, sealed: true });
                Ok(FileDone::Saved {
                    size,
                    checksum,
                    marker: self.contents.value(*table, marker).cloned(),
                })
            }
            FileTask::Read { file, offset, length } => {
                let bytes = &self.sealed(*file)?.bytes;
                let start = (*offset as usize).min(bytes.len());
                let end = (start + *length as usize).min(bytes.len());
                Ok(FileDone::Chunk(Bytes::copy_from_slice(&bytes[start..end])))
            }
            FileTask::Write { file, offset, bytes } => {
                if *offset == 0 {
                    let empty = File {
                        bytes: Vec::new(),
                        sealed: false,
                    };
                    self.files.insert(*file, empty);
                }
                let file = self.files.get_mut(file).ok_or_else(missing)?;
                let offset = *offset as usize;
                assert!(
                    offset <= file.bytes.len() && !file.sealed,
                    "a part behind the end"
                );
                file.bytes.truncate(offset);
                file.bytes.extend_from_slice(bytes);
                Ok(FileDone::Written)
            }
            FileTask::Seal {
                file,
                size,
                checksum: sum,
            } => {
                let found = self.files.get_mut(file).ok_or_else(missing)?;
                let intact = found.bytes.len() as u64 == *size && checksum(&found.bytes) == *sum;
                found.sealed = true;
                if !intact {
                    self.files.remove(file);
                }
                Ok(FileDone::Sealed { intact })
            }
            FileTask::Retain { owner, number } => {
                self.files
                    .retain(|file, _| file.owner != *owner || Some(file.number) == *number);
                Ok(FileDone::Retained)
            }
            FileTask::Load { .. } => unreachable!("takes several steps"),
        }
    }

    /// Starts a load: removes the marker and all rows.
    fn begin_load(
        &mut self,
        file: FileId,
        table: Table,
        prefix: &Bytes,
        marker: &Bytes,
    ) -> Result<Loading, Error> {
        let found = self.sealed(file)?;
        let rows = postcard::from_bytes::<Vec<(Bytes, Bytes)>>(&found.bytes);
        let rows = rows.map_err(|_| Error::CorruptRecord("a damaged file".to_owned()))?;
        let (marker, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(key, _)| key == marker);
        let gone = self.contents.rows_from(table, prefix);
        let gone = gone.take_while(|(key, _)| key.starts_with(prefix));
        let gone: Vec<_> = gone.map(|(key, _)| (key.clone(), None)).collect();
        self.write(table, gone);
        Ok(Loading {
            rows: rows.into(),
            marker: marker.into_iter().next(),
        })
    }

    /// Loads a few rows, and the marker last. Returns whether it is done.
    fn load(&mut self, table: Table, loading: &mut Loading) -> bool {
        let count = loading.rows.len().min(LOADED_ROWS);
        let last = count == 0;
        let mut rows: Vec<_> = loading.rows.drain(..count).collect();
        rows.extend(loading.marker.take_if(|_| last));
        let rows = rows.into_iter().map(|(key, value)| (key, Some(value)));
        self.write(table, rows.collect());
        last
    }

    fn write(&mut self, table: Table, rows: Vec<(Bytes, Option<Bytes>)>) {
        let rows = rows.into_iter();
        let writes = rows.map(|(key, value)| StateWrite { table, key, value });
        self.contents.perform(JournalOp::Write(writes.collect()));
    }
}
