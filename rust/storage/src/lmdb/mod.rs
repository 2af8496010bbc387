//! The durable store: two LMDB environments behind one contract.
//!
//! ```text
//!  commit ──► journal/   default sync flags, pre-zeroed file; an entry per batch of rows, entries of other streams,
//!     │                  hard states. An acknowledgement waits for one transaction with two syncs.
//!     ▼
//!  memtable    in memory: rows that are durable but not yet applied; readers check it first
//!     │
//!     ▼  apply_step, in the background, in large batches sorted by key
//!  state/     the rows, and the applied position of the journal, in the same transaction
//! ```
//!
//! **Recovery** loads the journal's entries beyond the state's applied position into the memtable. **Trimming** lags one
//! round: an entry is removed from the journal once a *later* round of applying has been synced. So the journal always
//! reaches back before the state's newest transaction, and opening detects a journal and a state that do not belong
//! together.
//!
//! Applying is idempotent: rows carry whole values, so a round interrupted by a crash is repeated.

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

/// Returns the free bytes of the file system of a path.
pub type SpaceProbe = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// Options for opening a store.
#[derive(Clone)]
pub struct Options {
    /// The maximum size of the LMDB map of the state, in bytes; a multiple of the page size. Costs only address space. Rows
    /// are rejected when it is full.
    pub map_size: usize,
    /// The maximum size of the LMDB map of the journal, in bytes; a multiple of the page size. Costs only address space.
    pub journal_map_size: usize,
    /// Bytes of zeros written to the journal's file when it is created, and ahead of its growth (0 disables this), so that a
    /// commit's sync need not extend the file.
    pub zero_fill: u64,
    /// Free bytes of the file system below which commits fail with [`CommitError::Full`].
    pub reserve_bytes: u64,
    /// Returns the free bytes.
    pub space: SpaceProbe,
    /// Omits every sync, to verify that the power-failure test detects it.
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

/// The shared state of journal, applier and readers.
struct Shared {
    journal: JournalEnv,
    state: StateEnv,
    memtable: RwLock<Memtable>,
    /// Entries of the node's stream up to here can be trimmed.
    trimmable: AtomicU64,
    /// Set while the last round of applying found no room: rows are rejected until one succeeds.
    state_full: Mark,
    /// Set while the last growing batch found no room in journal or file system.
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

/// The store on disk. Driven by one thread, or by two threads through its [halves](LmdbStore::split).
pub struct LmdbStore {
    journal: LmdbJournal,
    applier: LmdbApplier,
    files: Arc<LmdbFiles>,
}

impl LmdbStore {
    /// Opens or creates the store in a data directory, and recovers the journal's unapplied entries.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is repaired silently.
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
            // A crash interrupted the creation: nothing was committed yet.
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

    /// Performs tasks on files of rows.
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
