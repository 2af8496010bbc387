//! The durable store: two LMDB environments behind one contract.
//!
//! ```text
//!  commit ──► journal/   default sync flags, pre-zeroed file; an entry per batch of rows, entries of other streams,
//!     │                  hard states. What an acknowledgement waits for: one transaction, two syncs.
//!     ▼
//!  memtable    in memory: rows that are durable but not yet applied; readers look here first
//!     │
//!     ▼  apply_step, in the background, in large batches sorted by key
//!  state/     the rows, and up to which position of the journal they are applied, in the same transaction
//! ```
//!
//! **Recovery** loads into the memtable what the journal has beyond the state's applied position. **Trimming** lags one
//! round: an entry leaves the journal once a *later* round of applying has been synced. So the journal always
//! reaches back before the state's newest transaction, and opening can tell a journal and a state that do not belong
//! together.
//!
//! Applying is idempotent: rows carry whole values, so a round that a crash cut is simply repeated.

mod applier;
mod bulk;
mod coding;
mod environment;
mod journal;
mod length;
mod reader;
mod usage;
mod view;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{fmt, io};

use quorate_core::store::{JournalOp, StateWrite};

pub use self::applier::LmdbApplier;
use self::environment::{JournalEnv, StateEnv};
pub use self::journal::LmdbJournal;
use self::usage::Mark;
pub use self::usage::{Extent, Full, Gauge, Usage};
pub(crate) use self::view::View;
use crate::bulk::Bulk;
use crate::datadir::DataDir;
use crate::error::{CommitError, OpenError};
use crate::files::LmdbFiles;
use crate::files::folder::Folder;
use crate::memtable::Memtable;
use crate::store::{Applier, Committer, DerivedRows, Reader, Store, assert_writes};
use crate::sys;

/// Answers how many bytes can still be written to the file system of a path.
pub type SpaceProbe = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// The most that the state may grow to, in bytes; a multiple of the page size. Costs address space only. Rows are
    /// turned down when it is reached.
    pub map_size: usize,
    /// The most that the journal may grow to, in bytes; a multiple of the page size. Costs address space only.
    pub journal_map_size: usize,
    /// Bytes of the journal's file that are written with zeros when it is created, and again ahead of its growth
    /// (0: never), so that a commit's sync need not make the file longer.
    pub zero_fill: u64,
    /// Free bytes of the file system below which commits answer [`CommitError::Full`].
    pub reserve_bytes: u64,
    /// Where the free bytes are learned from.
    pub space: SpaceProbe,
    /// Leaves out every sync: for the test that proves that the power-cut test can fail.
    #[doc(hidden)]
    pub without_sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            map_size: 256 << 30,
            journal_map_size: 64 << 30,
            zero_fill: 2 << 20,
            reserve_bytes: 32 << 20,
            space: Arc::new(sys::available_bytes),
            without_sync: false,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("map_size", &self.map_size)
            .field("journal_map_size", &self.journal_map_size)
            .field("zero_fill", &self.zero_fill)
            .field("reserve_bytes", &self.reserve_bytes)
            .finish_non_exhaustive()
    }
}

/// What the journal, the applier and the readers share.
struct Shared {
    journal: JournalEnv,
    state: StateEnv,
    memtable: RwLock<Memtable>,
    /// Entries of the node's stream up to here may leave the journal.
    trimmable: AtomicU64,
    /// The last round of applying found no room: no rows are taken until one succeeds.
    state_full: Mark,
    /// The last batch that adds anything found no room, whatever the state has.
    commit_full: Mark,
    reserve_bytes: u64,
    space: SpaceProbe,
    /// Last, so that the lock outlives the environments.
    dir: DataDir,
}

impl Shared {
    fn memtable(&self) -> RwLockReadGuard<'_, Memtable> {
        self.memtable.read().expect("no holder of the memtable panics")
    }

    fn memtable_mut(&self) -> RwLockWriteGuard<'_, Memtable> {
        self.memtable.write().expect("no holder of the memtable panics")
    }

    fn available_bytes(&self) -> Result<u64, String> {
        let path = self.dir.path();
        (self.space)(path).map_err(|error| format!("inspect the file system of {}: {error}", path.display()))
    }
}

impl DerivedRows for Shared {
    fn apply_rows(&self, writes: Vec<StateWrite>) -> u64 {
        assert_writes(&writes);
        self.memtable_mut().apply_rows(writes)
    }

    fn unapplied_bytes(&self) -> usize {
        self.memtable().bytes()
    }
}

/// The store on disk. One thread drives it whole, or two its [halves](LmdbStore::split).
pub struct LmdbStore {
    journal: LmdbJournal,
    applier: LmdbApplier,
    files: Arc<LmdbFiles>,
}

impl LmdbStore {
    /// Opens the store in a data directory, or creates it, and recovers what the journal has beyond the state.
    ///
    /// # Errors
    /// Whatever keeps it from being opened whole, see [`OpenError`]: nothing is repaired silently.
    pub fn open(dir: &DataDir, options: &Options) -> Result<Self, OpenError> {
        let created_before = dir.has_data()?;
        let claimed = dir.identity()?.is_some();
        let journal_path = dir.path().join("journal");
        let state_path = dir.path().join("state");
        let files_path = dir.path().join("snapshots");
        if created_before {
            for path in [&journal_path, &state_path] {
                if !length::check(&path.join(environment::DATA_FILE))? {
                    return Err(OpenError::DataMissing { path: path.clone() });
                }
            }
        } else if claimed {
            // A crash cut the creation: nothing was committed yet, so there is nothing to keep.
            environment::remove(&journal_path)?;
            environment::remove(&state_path)?;
            environment::remove(&files_path)?;
        }
        let journal = JournalEnv::open(&journal_path, options)?;
        let state = StateEnv::open(&state_path, options)?;
        let folder = Folder::open(files_path, Arc::clone(&options.space), options.reserve_bytes)?;
        dir.set_has_data()?;

        let applied = state.applied()?;
        let mut memtable = Memtable::after(applied);
        let replayed = journal.replay(applied, &mut memtable)?;
        let shared = Arc::new(Shared {
            journal,
            state,
            memtable: RwLock::new(memtable),
            trimmable: AtomicU64::new(0),
            state_full: Mark::default(),
            commit_full: Mark::default(),
            reserve_bytes: options.reserve_bytes,
            space: Arc::clone(&options.space),
            dir: dir.clone(),
        });
        let journal = LmdbJournal::new(Arc::clone(&shared), replayed, options)?;
        let files = Arc::new(LmdbFiles::new(Arc::clone(&shared) as _, folder));
        let applier = LmdbApplier::new(shared, applied);
        Ok(LmdbStore {
            journal,
            applier,
            files,
        })
    }

    /// What performs tasks with files of rows.
    pub fn files(&self) -> Arc<LmdbFiles> {
        Arc::clone(&self.files)
    }

    /// The two halves, each with the write transactions of one environment, for two threads.
    pub fn split(self) -> (LmdbJournal, LmdbApplier) {
        (self.journal, self.applier)
    }
}

impl Store for LmdbStore {
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError> {
        self.journal.commit(batch)
    }

    fn apply_step(&mut self, budget: usize) -> Result<bool, CommitError> {
        self.applier.apply_step(budget)
    }

    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        self.applier.bulk(change)
    }

    fn derived(&self) -> Arc<dyn DerivedRows> {
        self.applier.derived()
    }

    fn flushed(&self) -> u64 {
        self.applier.flushed()
    }

    fn unapplied_bytes(&self) -> usize {
        self.journal.unapplied_bytes()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.journal.reader()
    }
}

#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod space_tests;
