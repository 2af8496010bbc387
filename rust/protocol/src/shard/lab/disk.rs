//! One node's disk: a journal, rows that settle, and files of rows.
//!
//! What was asked for waits here until the lab lets it happen; a crash takes what has not. Rows that were derived are seen
//! at once, and survive a crash only when they have settled, in their order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::files::{FileDone, FileId, FileTask};
use crate::role::{Query, RoleId, Rows};
use crate::store::{JournalOp, Priority, StateWrite, StreamId};
use xxhash_rust::xxh3::xxh3_64 as checksum;

/// A persist that has not been answered.
pub(in crate::shard) struct Flight {
    pub(super) role: RoleId,
    pub(super) token: u64,
    priority: Priority,
    ops: Vec<JournalOp>,
}

/// Rows that a crash would take.
struct Derived {
    role: RoleId,
    token: u64,
    writes: Vec<StateWrite>,
}

/// A file, and whether it would survive a crash.
#[derive(Clone)]
struct File {
    bytes: Vec<u8>,
    sealed: bool,
}

type Table = BTreeMap<Bytes, Bytes>;

/// The rows of a file on their way into the table.
struct Loading {
    rows: VecDeque<(Bytes, Bytes)>,
    marker: Option<(Bytes, Bytes)>,
}

/// One node's disk.
#[derive(Default)]
pub(in crate::shard) struct Disk {
    hard: BTreeMap<Bytes, Bytes>,
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    flights: VecDeque<Flight>,
    /// As they are read.
    rows: Table,
    /// As a crash leaves them.
    settled: Table,
    derived: VecDeque<Derived>,
    files: BTreeMap<FileId, File>,
    /// By owner: file tasks, in their order.
    tasks: BTreeMap<u64, VecDeque<(RoleId, u64, FileTask)>>,
    loading: BTreeMap<u64, Loading>,
    /// It answers only when told to.
    pub(in crate::shard) held: bool,
    /// What is derived does not settle.
    pub(in crate::shard) unsettled: bool,
    /// File tasks wait.
    pub(in crate::shard) files_held: bool,
    /// It refuses everything.
    pub(in crate::shard) full: bool,
}

impl Disk {
    // ---- the journal ----

    pub(super) fn persist(&mut self, role: RoleId, token: u64, priority: Priority, ops: Vec<JournalOp>) {
        self.flights.push_back(Flight {
            role,
            token,
            priority,
            ops,
        });
    }

    /// Does what waits longest, urgent requests first; `true` if it was refused.
    pub(super) fn sync(&mut self) -> Option<(Flight, bool)> {
        let urgent = |flight: &Flight| flight.priority != Priority::Bulk;
        let place = self.flights.iter().position(urgent).unwrap_or(0);
        let flight = self.flights.remove(place)?;
        if !self.full {
            self.apply(&flight.ops);
        }
        Some((flight, self.full))
    }

    fn apply(&mut self, ops: &[JournalOp]) {
        for op in ops {
            match op {
                JournalOp::PutHard { key, value } => drop(self.hard.insert(key.clone(), value.clone())),
                JournalOp::DeleteHard { key } => drop(self.hard.remove(key)),
                JournalOp::Append {
                    stream,
                    position,
                    bytes,
                } => {
                    let entries = self.streams.entry(*stream).or_default();
                    entries.insert(*position, bytes.clone());
                }
                JournalOp::Truncate { stream, from } => {
                    self.streams.entry(*stream).or_default().split_off(from);
                }
                JournalOp::Trim { stream, through } => {
                    let entries = self.streams.entry(*stream).or_default();
                    *entries = entries.split_off(&(through + 1));
                }
                JournalOp::Write(_) => panic!("a shard journals no rows"),
            }
        }
    }

    // ---- rows ----

    pub(super) fn derive(&mut self, role: RoleId, token: u64, writes: Vec<StateWrite>) {
        put(&mut self.rows, &writes);
        self.derived.push_back(Derived { role, token, writes });
    }

    /// The first so many derived effects survive a crash from now on.
    pub(super) fn settle(&mut self, count: usize) -> Vec<(RoleId, u64)> {
        let count = count.min(self.derived.len());
        let settled = self.derived.drain(..count).map(|derived| {
            put(&mut self.settled, &derived.writes);
            (derived.role, derived.token)
        });
        settled.collect()
    }

    pub(super) fn read(&self, query: &Query) -> Rows {
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let mut more = false;
        let rows = match query {
            Query::Hard { key } => self.hard.get_key_value(key).map(row).into_iter().collect(),
            Query::Get { key, .. } => self.rows.get_key_value(key).map(row).into_iter().collect(),
            Query::Range {
                start,
                end,
                limit_rows,
                ..
            } if start < end => {
                let range = self.rows.range(start.clone()..end.clone());
                let mut rows: Vec<_> = range.map(row).take(*limit_rows as usize + 1).collect();
                more = rows.len() > *limit_rows as usize;
                rows.truncate(*limit_rows as usize);
                rows
            }
            Query::Range { .. } => Vec::new(),
            Query::Log { stream, from, .. } => {
                let entries = self.streams.get(stream).into_iter();
                let entries = entries.flat_map(|entries| entries.range(from..));
                let row = |(position, bytes): (&u64, &Bytes)| {
                    (Bytes::copy_from_slice(&position.to_be_bytes()), bytes.clone())
                };
                // A few at a time, so that pages are tested.
                entries.map(row).take(50).collect()
            }
        };
        Rows { rows, more }
    }

    /// The rows as they are read, or as a crash would leave them.
    pub(in crate::shard) fn table(&self, settled: bool) -> &BTreeMap<Bytes, Bytes> {
        if settled { &self.settled } else { &self.rows }
    }

    // ---- files ----

    pub(super) fn ask_file(&mut self, role: RoleId, token: u64, task: FileTask) {
        let tasks = self.tasks.entry(task.owner()).or_default();
        tasks.push_back((role, token, task));
    }

    pub(super) fn owners(&self) -> Vec<u64> {
        let waiting = self.tasks.iter().filter(|(_, tasks)| !tasks.is_empty());
        waiting.map(|(owner, _)| *owner).collect()
    }

    pub(in crate::shard) fn files(&self) -> Vec<u64> {
        self.files.keys().map(|file| file.number).collect()
    }

    /// A byte of every file rots.
    pub(in crate::shard) fn rot(&mut self) {
        for file in self.files.values_mut() {
            file.bytes[0] ^= 1;
        }
    }

    /// A byte of a row rots.
    pub(in crate::shard) fn rot_row(&mut self, key: &Bytes) {
        for table in [&mut self.rows, &mut self.settled] {
            if let Some(value) = table.get_mut(key) {
                let mut bytes = value.to_vec();
                bytes[0] ^= 0x80;
                *value = bytes.into();
            }
        }
    }

    /// A step of the owner's first task. Gives its answer when it is done, and what has settled on the way.
    #[expect(clippy::type_complexity, reason = "two kinds of answers")]
    pub(super) fn file_step(
        &mut self,
        owner: u64,
    ) -> (Option<(RoleId, u64, Result<FileDone, Error>)>, Vec<(RoleId, u64)>) {
        let Some((role, token, task)) = self.tasks.get_mut(&owner).and_then(VecDeque::pop_front) else {
            return (None, Vec::new());
        };
        let mut settled = Vec::new();
        let result = match &task {
            FileTask::Load {
                file, prefix, marker, ..
            } => {
                settled = self.settle(usize::MAX);
                self.load(*file, prefix, marker)
            }
            task => Some(self.at_once(task)),
        };
        match result {
            Some(result) => (Some((role, token, result)), settled),
            None => {
                let tasks = self.tasks.entry(owner).or_default();
                tasks.push_front((role, token, task));
                (None, settled)
            }
        }
    }

    fn at_once(&mut self, task: &FileTask) -> Result<FileDone, Error> {
        let missing = || Error::NotFound("no such file".to_owned());
        if self.full && matches!(task, FileTask::Save { .. } | FileTask::Write { .. }) {
            return Err(Error::StorageFull("no room for a file".to_owned()));
        }
        match task {
            FileTask::Save {
                file, prefix, marker, ..
            } => {
                let rows: Vec<_> = self
                    .rows
                    .range(prefix.clone()..)
                    .take_while(|(key, _)| key.starts_with(prefix))
                    .collect();
                let bytes = postcard::to_stdvec(&rows).expect("rows can be encoded");
                let (size, checksum) = (bytes.len() as u64, checksum(&bytes));
                self.files.insert(*file, File { bytes, sealed: true });
                Ok(FileDone::Saved {
                    size,
                    checksum,
                    marker: self.rows.get(marker).cloned(),
                })
            }
            FileTask::Read { file, offset, length } => {
                let file = self
                    .files
                    .get(file)
                    .filter(|file| file.sealed)
                    .ok_or_else(missing)?;
                let start = (*offset as usize).min(file.bytes.len());
                let end = (start + *length as usize).min(file.bytes.len());
                Ok(FileDone::Chunk(Bytes::copy_from_slice(&file.bytes[start..end])))
            }
            FileTask::Write { file, offset, bytes } => {
                if *offset == 0 {
                    let file = *file;
                    let bytes = Vec::new();
                    self.files.insert(file, File { bytes, sealed: false });
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
            FileTask::Keep { owner, number } => {
                self.files
                    .retain(|file, _| file.owner != *owner || Some(file.number) == *number);
                Ok(FileDone::Kept)
            }
            FileTask::Load { .. } => unreachable!("takes several steps"),
        }
    }

    /// The first step takes the marker and all rows away, the last puts the marker back.
    fn load(&mut self, file: FileId, prefix: &Bytes, marker: &Bytes) -> Option<Result<FileDone, Error>> {
        if self.full {
            self.loading.remove(&file.owner);
            return Some(Err(Error::StorageFull("no room for rows".to_owned())));
        }
        let Some(loading) = self.loading.get_mut(&file.owner) else {
            let Some(found) = self.files.get(&file).filter(|file| file.sealed) else {
                return Some(Err(Error::NotFound("no such file".to_owned())));
            };
            let Ok(rows) = postcard::from_bytes::<Vec<(Bytes, Bytes)>>(&found.bytes) else {
                return Some(Err(Error::CorruptRecord("a damaged file".to_owned())));
            };
            let (marker, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(key, _)| key == marker);
            let loading = Loading {
                rows: rows.into(),
                marker: marker.into_iter().next(),
            };
            self.loading.insert(file.owner, loading);
            for table in [&mut self.rows, &mut self.settled] {
                table.retain(|key, _| !key.starts_with(prefix));
            }
            return None;
        };
        let slice: Vec<_> = loading.rows.drain(..loading.rows.len().min(5)).collect();
        let last = slice.is_empty();
        let marker = if last { loading.marker.take() } else { None };
        for table in [&mut self.rows, &mut self.settled] {
            table.extend(slice.iter().cloned().chain(marker.clone()));
        }
        if !last {
            return None;
        }
        self.loading.remove(&file.owner);
        Some(Ok(FileDone::Loaded))
    }

    // ---- crashes ----

    /// Power is lost. Of the persists in flight the first `synced` are on the disk, of the derived rows the first
    /// `settled`; nobody hears of it.
    pub(super) fn crash(&mut self, synced: usize, settled: usize) {
        for _ in 0..synced {
            self.sync();
        }
        self.settle(settled);
        self.flights.clear();
        self.derived.clear();
        self.tasks.clear();
        self.loading.clear();
        self.files.retain(|_, file| file.sealed);
        self.rows = self.settled.clone();
    }
}

fn put(table: &mut Table, writes: &[StateWrite]) {
    for write in writes {
        match &write.value {
            Some(value) => drop(table.insert(write.key.clone(), value.clone())),
            None => drop(table.remove(&write.key)),
        }
    }
}

/// The rows that begin with a prefix.
pub(in crate::shard) fn within(table: &BTreeMap<Bytes, Bytes>, range: Range<Bytes>) -> Vec<(&Bytes, &Bytes)> {
    table.range(range).collect()
}
