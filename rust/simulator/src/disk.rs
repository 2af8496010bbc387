//! A simulated disk: it may be slow or full, and loses unsynced data when its node stops.
//!
//! The store is the in-memory implementation, the batching of commits is the real [`CommitQueue`]. The simulation adds the
//! duration of a sync, and the fate of a batch that a crash interrupts: it is lost, or it is durable although its commit did
//! not return. The store survives its node; the queue does not. A record may also be corrupted, which its checksum detects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::rows;
use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileTask};
use quorate_core::ids::KeyspaceId;
use quorate_core::key::{Key, counter_row, decode_record_key, record_key};
use quorate_core::store::{JournalOp, Query, Rows, StateWrite, Table};
use quorate_protocol::keyspace::Keyspace;
use quorate_raft::entry::Entry;
use quorate_raft::format;
use quorate_raft::snapshot::LogStart;
use quorate_raft::types::{GroupId, HardState, LogIndex, Term};
use quorate_storage::files::{MemoryFiles, Work};
use quorate_storage::memory::InFlight;
use quorate_storage::unflushed::{Flushed, Unflushed};
use quorate_storage::{
    CommitError, CommitQueue, Completion, Limits, MemoryStore, Outcome, Reader, Request, Store, query,
};
use quorate_versions::KeyState;
use serde::Deserialize;

use crate::rng::{Delay, SimRng};

/// The approximate bytes of rows per step of a load: few, so that crashes interrupt many loads.
const SLICE_BYTES: usize = 512;

/// The conditions of a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskConditions {
    /// How long a commit takes.
    pub sync: Delay,
    /// How long a read takes.
    pub read: Delay,
    /// Whether the disk is full.
    pub full: bool,
}

impl Default for DiskConditions {
    /// A solid-state disk with latency spikes.
    fn default() -> Self {
        DiskConditions {
            sync: Delay {
                least: Duration::from_micros(100),
                most: Duration::from_millis(2),
                spikes: 0.02,
                spike: Duration::from_millis(30),
            },
            read: Delay {
                least: Duration::from_micros(2),
                most: Duration::from_micros(50),
                spikes: 0.01,
                spike: Duration::from_millis(2),
            },
            full: false,
        }
    }
}

/// A record before and after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its row.
    pub row: Bytes,
    /// What was durable before.
    pub before: Option<Bytes>,
    /// What is durable now.
    pub after: Option<Bytes>,
}

impl Change {
    /// The keyspace and key, and the durable state.
    ///
    /// # Errors
    /// If the state is missing or malformed: a replica never deletes a record.
    pub fn decode(&self) -> Result<(KeyspaceId, Key, KeyState), String> {
        let (keyspace, key) = decode_record_key(&self.row).map_err(|error| error.to_string())?;
        let bytes = self
            .after
            .as_ref()
            .ok_or_else(|| format!("the record of {key} was deleted"))?;
        Ok((
            keyspace,
            key,
            KeyState::decode(bytes).map_err(|error| error.to_string())?,
        ))
    }
}

/// The result of starting a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing is pending, or a commit is in progress.
    Nothing,
    /// The commit is durable after this duration: call [`Disk::synced`] then.
    Syncing(Duration),
    /// The disk is full: the completions of the rejected requests.
    Refused(Vec<Completion>),
}

/// The result of a step of a file task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesStep {
    /// If the task is done: the instance, its token, and the result.
    pub answer: Option<(u32, u64, Result<FileDone, Error>)>,
    /// Derived rows flushed by the step.
    pub flushed: Vec<Flushed>,
    /// The delay until the next [`Disk::files_step`], if the task is not done.
    pub next: Option<Duration>,
}

/// File tasks of one owner, with instance and token: the first is in progress.
type Lane = VecDeque<(u32, u64, Work)>;

/// A disk and its pending commits.
pub struct Disk {
    store: MemoryStore,
    files: MemoryFiles,
    lanes: BTreeMap<u64, Lane>,
    reader: Arc<dyn Reader>,
    queue: CommitQueue,
    unflushed: Unflushed,
    /// The record rows of the current batch.
    committing: Vec<Bytes>,
    /// All record rows ever submitted.
    known: BTreeSet<Bytes>,
    conditions: DiskConditions,
    rng: SimRng,
}

impl Disk {
    /// An empty disk.
    pub fn new(rng: SimRng) -> Self {
        let store = MemoryStore::new();
        let reader = store.reader();
        let unflushed = Unflushed::new(store.derived());
        Disk {
            unflushed,
            store,
            files: MemoryFiles::new(SLICE_BYTES),
            lanes: BTreeMap::new(),
            reader,
            queue: CommitQueue::new(Limits::default()),
            committing: Vec::new(),
            known: BTreeSet::new(),
            conditions: DiskConditions::default(),
            rng,
        }
    }

    /// Its conditions.
    pub fn conditions(&self) -> DiskConditions {
        self.conditions
    }

    /// Changes its conditions, from the next commit on.
    pub fn set_conditions(&mut self, conditions: DiskConditions) {
        self.conditions = conditions;
        self.store.set_capacity(conditions.full.then_some(0));
    }

    /// Queues a request.
    pub fn submit(&mut self, request: Request) {
        self.queue.push(request);
    }

    /// Starts a commit of the pending requests, if none is in progress.
    ///
    /// # Panics
    /// If the store fails fatally, which is not simulated.
    pub fn begin(&mut self) -> Begun {
        let Some(ops) = self.queue.next_batch() else {
            return Begun::Nothing;
        };
        let rows = records(&ops);
        match self.store.begin_commit(ops) {
            Ok(()) => {
                self.known.extend(rows.iter().cloned());
                self.committing = rows;
                Begun::Syncing(self.conditions.sync.sample(&mut self.rng))
            }
            Err(CommitError::Full) => Begun::Refused(self.queue.finish(Outcome::Full)),
            Err(CommitError::Fatal(why)) => panic!("the store failed: {why}"),
        }
    }

    /// The sync returned. Returns the completions, and the changed records.
    pub fn synced(&mut self) -> (Vec<Completion>, Vec<Change>) {
        let rows = std::mem::take(&mut self.committing);
        let mut changes: Vec<Change> = rows
            .into_iter()
            .map(|row| Change {
                before: self.row(Table::Records, &row),
                after: None,
                row,
            })
            .collect();
        self.store.finish_commit();
        for change in &mut changes {
            change.after = self.row(Table::Records, &change.row);
        }
        (self.queue.finish(Outcome::Durable), changes)
    }

    /// Applies derived rows: readable immediately, lost with the node unless [`Disk::apply`] flushes them before.
    pub fn apply_rows(&mut self, owner: u32, token: u64, writes: Vec<StateWrite>) {
        self.unflushed.apply_rows(owner, token, writes);
    }

    /// Sometimes runs a round of applying. It does not change what a reader sees; returns the flushed derived rows.
    pub fn apply(&mut self) -> Vec<Flushed> {
        if !self.rng.chance(0.25) {
            return Vec::new();
        }
        while let Ok(true) = self.store.apply_step(usize::MAX) {}
        self.unflushed.take_flushed(self.store.flushed())
    }

    /// Queues a file task. The tasks of one owner are performed sequentially: if none was in progress, returns the delay until
    /// [`Disk::files_step`] must be called for it.
    pub fn ask_files(&mut self, instance: u32, token: u64, task: FileTask) -> Option<Duration> {
        let lane = self.lanes.entry(task.owner()).or_default();
        lane.push_back((instance, token, Work::new(task)));
        (lane.len() == 1).then(|| self.conditions.sync.sample(&mut self.rng))
    }

    /// Performs a step of the current file task of this owner.
    ///
    /// # Panics
    /// If there is none, or the store fails fatally, which is not simulated.
    pub fn files_step(&mut self, owner: u64) -> FilesStep {
        let lane = self.lanes.get_mut(&owner).expect("a task is under way");
        let (instance, token, work) = lane.front_mut().expect("a task is under way");
        let (instance, token) = (*instance, *token);
        let answer = self.files.step(work, &mut self.store).map(|answer| {
            lane.pop_front();
            let to_role_error =
                |error: quorate_storage::FileError| error.to_role_error().expect("the store does not fail");
            (instance, token, answer.map_err(to_role_error))
        });
        let idle = lane.is_empty();
        if idle {
            self.lanes.remove(&owner);
        }
        FilesStep {
            answer,
            flushed: self.unflushed.take_flushed(self.store.flushed()),
            next: (!idle).then(|| self.conditions.sync.sample(&mut self.rng)),
        }
    }

    /// The node stops. Pending requests are lost; the current batch may be durable.
    pub fn crash(&mut self) {
        let kept = self.rng.chance(0.5);
        self.store
            .crash(if kept { InFlight::Kept } else { InFlight::Lost });
        self.files.crash();
        self.lanes.clear();
        self.queue = CommitQueue::new(Limits::default());
        self.unflushed = Unflushed::new(self.store.derived());
        self.committing.clear();
    }

    /// Corrupts a record. Returns which; `None` if there are no records.
    pub fn corrupt_record(&mut self) -> Option<(KeyspaceId, Key)> {
        let sound: Vec<&Bytes> = self
            .known
            .iter()
            .filter(|row| self.row(Table::Records, row).is_some())
            .collect();
        if sound.is_empty() {
            return None;
        }
        let row: &Bytes = self.rng.pick::<&Bytes>(&sound);
        self.store.corrupt(Table::Records, row);
        decode_record_key(row).ok()
    }

    /// The duration of the next read.
    pub fn read_time(&mut self) -> Duration {
        self.conditions.read.sample(&mut self.rng)
    }

    /// Bytes that are pending or being committed.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Answers a read from the current durable state.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] if a record fails its checksum.
    pub fn read(&self, query: &Query) -> Result<Rows, Error> {
        query::answer(&*self.reader, query).map_err(|error| Error::CorruptRecord(error.to_string()))
    }

    /// The durable state of a key; empty if it is missing or corrupt.
    ///
    /// # Panics
    /// If the stored state is malformed.
    pub fn state(&self, keyspace: KeyspaceId, key: &Key) -> KeyState {
        match self.row(Table::Records, &record_key(keyspace, key)) {
            Some(bytes) => KeyState::decode(&bytes).expect("only states are stored as records"),
            None => KeyState::default(),
        }
    }

    /// All rows of a group of a consensus keyspace, in their order.
    ///
    /// # Panics
    /// If one is corrupt: only records are corrupted.
    pub fn group_rows(&self, group: GroupId) -> Vec<(Bytes, Bytes)> {
        let query = Query::Range {
            table: Table::Groups,
            start: rows::marker_key(group),
            end: rows::entries(group, 0).end,
            limit_rows: u32::MAX,
            limit_bytes: u32::MAX,
        };
        self.read(&query).expect("rows of groups are not corrupted").rows
    }

    /// A description of all data of a keyspace: rows, entries of logs, files, hard states, reserved counters.
    ///
    /// # Panics
    /// If something is corrupt.
    pub fn leftovers(&self, keyspace: &Keyspace) -> Vec<String> {
        let mut found = Vec::new();
        let id = keyspace.id.0;
        for table in [Table::Records, Table::TokenIndex] {
            let query = Query::Range {
                table,
                start: Bytes::copy_from_slice(&id.to_be_bytes()),
                end: Bytes::copy_from_slice(&(id + 1).to_be_bytes()),
                limit_rows: u32::MAX,
                limit_bytes: u32::MAX,
            };
            let rows = self.read(&query).expect("missing rows are not corrupt").rows;
            found.extend(rows.first().map(|_| format!("{} rows in {table:?}", rows.len())));
        }
        let single = |query: &Query| {
            !self
                .read(query)
                .expect("hard states and counters are not corrupted")
                .rows
                .is_empty()
        };
        let counter = Query::Get {
            table: Table::Meta,
            key: counter_row(keyspace.id),
        };
        if single(&counter) {
            found.push("reserved counters".to_owned());
        }
        for group in keyspace.groups.iter().map(|group| group.id) {
            for key in [group.hard_state_key(), group.log_start_key()] {
                let hard = Query::Hard { key: key.clone() };
                if single(&hard) {
                    found.push(format!("the state {}", String::from_utf8_lossy(&key)));
                }
            }
            let rows = self.group_rows(group).len();
            if rows > 0 {
                found.push(format!("{rows} rows of {group}"));
            }
            let query = Query::Log {
                stream: group.log_stream(),
                from: 0,
                limit_rows: 1,
                limit_bytes: 1,
            };
            if !self.read(&query).expect("logs are not corrupted").rows.is_empty() {
                found.push(format!("entries in the log of {group}"));
            }
            let files = self.files.count(u64::from(group.0));
            if files > 0 {
                found.push(format!("{files} files of {group}"));
            }
        }
        found
    }

    /// The durable term and vote of a server of a group.
    ///
    /// # Panics
    /// If the stored value is malformed.
    pub fn hard_state(&self, group: GroupId) -> HardState {
        self.hard("hard state", group.hard_state_key())
            .unwrap_or_default()
    }

    /// The term of a durable entry of a group's log.
    ///
    /// # Panics
    /// If the stored value is malformed.
    pub fn term_of_entry(&self, group: GroupId, index: LogIndex) -> Option<Term> {
        let query = Query::Log {
            stream: group.log_stream(),
            from: index.0,
            limit_rows: 1,
            limit_bytes: 1,
        };
        let found = self.read(&query).expect("logs are not corrupted").rows;
        let (position, bytes) = found.first()?;
        let entry = || format::decode::<Entry>("entry", bytes).expect("it was written by a server");
        (*position == index.0.to_be_bytes()[..]).then(|| entry().term)
    }

    /// The last entry of a group's log that is durably covered by a snapshot.
    pub fn begins_behind(&self, group: GroupId) -> LogIndex {
        let log_start: Option<LogStart> = self.hard("beginning of a log", group.log_start_key());
        log_start.map_or(LogIndex(0), |log_start| log_start.base.index)
    }

    fn hard<T: for<'de> Deserialize<'de>>(&self, what: &'static str, key: Bytes) -> Option<T> {
        let found = self
            .read(&Query::Hard { key })
            .expect("hard states are not corrupted")
            .rows;
        let (_, bytes) = found.first()?;
        Some(format::decode::<T>(what, bytes).expect("it was written by a server"))
    }

    /// Whether a key's record is corrupt.
    pub fn is_corrupt(&self, keyspace: KeyspaceId, key: &Key) -> bool {
        self.reader
            .get(Table::Records, &record_key(keyspace, key))
            .is_err()
    }

    /// The value of a row, if it is intact.
    fn row(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.reader.get(table, key).ok().flatten()
    }
}

/// The rows of records that a batch writes, each once.
fn records(ops: &[JournalOp]) -> Vec<Bytes> {
    let mut rows: Vec<Bytes> = Vec::new();
    for op in ops {
        if let JournalOp::Write(writes) = op {
            rows.extend(
                writes
                    .iter()
                    .filter(|write| write.table == Table::Records)
                    .map(|write| write.key.clone()),
            );
        }
    }
    rows.sort();
    rows.dedup();
    rows
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
