//! The contract of a store, run against both implementations: LMDB and memory. Only opening and restarting a store differ.

mod suite;

use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_storage::bulk::Bulk;
use quorate_storage::files::{BulkWriter, Direct, FileError, MemoryFiles, SLICE_BYTES, Work};
use quorate_storage::memory::InFlight;
use quorate_storage::{DataDir, LmdbStore, MemoryStore, Options, Store};
use tempfile::TempDir;

/// A store under test and its persistent contents.
trait Bench {
    /// An empty store.
    fn new() -> Self;
    /// An empty store with room for about a megabyte.
    fn small() -> Self;
    fn store(&mut self) -> &mut dyn Store;
    /// Crashes and restarts from the durable state.
    fn restart(&mut self);
    /// Performs a file task to completion.
    fn files(&mut self, task: FileTask) -> Result<FileDone, Error>;
    /// Makes the first `changes` changes of a load; returns whether it had no others.
    fn load_partly(&mut self, task: FileTask, changes: usize) -> bool;
    /// Flips a bit of a complete file.
    fn corrupt(&mut self, file: FileId, place: usize);
}

fn to_role_error(error: FileError) -> Error {
    error.to_role_error().unwrap_or_else(|| panic!("{error}"))
}

struct Memory(MemoryStore, MemoryFiles);

impl Memory {
    fn with(store: MemoryStore) -> Self {
        Memory(store, MemoryFiles::new(SLICE_BYTES))
    }
}

impl Bench for Memory {
    fn new() -> Self {
        Memory::with(MemoryStore::new())
    }

    fn small() -> Self {
        let mut store = MemoryStore::new();
        store.set_capacity(Some(1 << 20));
        Memory::with(store)
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }

    fn restart(&mut self) {
        self.0.crash(InFlight::Lost);
        self.1.crash();
    }

    fn files(&mut self, task: FileTask) -> Result<FileDone, Error> {
        let mut work = Work::new(task);
        loop {
            if let Some(answer) = self.1.step(&mut work, &mut self.0) {
                return answer.map_err(to_role_error);
            }
        }
    }

    fn load_partly(&mut self, task: FileTask, changes: usize) -> bool {
        let mut work = Work::new(task);
        (0..changes).any(|_| self.1.step(&mut work, &mut self.0).is_some())
    }

    fn corrupt(&mut self, file: FileId, place: usize) {
        self.1.corrupt(file, place);
    }
}

struct Lmdb {
    folder: TempDir,
    options: Options,
    store: Option<LmdbStore>,
}

impl Lmdb {
    fn with(options: Options) -> Self {
        let mut bench = Lmdb {
            folder: tempfile::tempdir().unwrap(),
            options,
            store: None,
        };
        bench.restart();
        bench
    }
}

impl Bench for Lmdb {
    fn new() -> Self {
        Lmdb::with(Options::default())
    }

    fn small() -> Self {
        Lmdb::with(Options {
            map_size: 1 << 20,
            journal_map_size: 1 << 20,
            zero_fill: 0,
            ..Options::default()
        })
    }

    fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut().unwrap()
    }

    fn restart(&mut self) {
        self.store = None;
        let dir = DataDir::open(self.folder.path().join("data")).unwrap();
        self.store = Some(LmdbStore::open(&dir, &self.options).unwrap());
    }

    fn files(&mut self, task: FileTask) -> Result<FileDone, Error> {
        let store = self.store.as_mut().unwrap();
        store
            .files()
            .perform(&task, &mut Direct(store))
            .map_err(to_role_error)
    }

    fn load_partly(&mut self, task: FileTask, changes: usize) -> bool {
        let store = self.store.as_mut().unwrap();
        let files = store.files();
        let mut few = Few(store, changes);
        match files.perform(&task, &mut few) {
            Ok(done) => done == FileDone::Loaded,
            Err(error) => {
                assert_eq!(error, FileError::Stopped);
                false
            }
        }
    }

    fn corrupt(&mut self, file: FileId, place: usize) {
        let name = format!("data/snapshots/{:016x}-{:016x}.rows", file.owner, file.number);
        let path = self.folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }
}

/// Makes this many changes, then stops.
struct Few<'a>(&'a mut LmdbStore, usize);

impl BulkWriter for Few<'_> {
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError> {
        self.1 = self.1.checked_sub(1).ok_or(FileError::Stopped)?;
        Direct(self.0).bulk(change)
    }
}

macro_rules! conformance {
    ($($property:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $property() { super::suite::$property::<super::Memory>(); })*
        }
        mod lmdb {
            $(#[test] fn $property() { super::suite::$property::<super::Lmdb>(); })*
        }
    };
}

conformance!(
    a_row_is_visible_once_committed,
    rows_survive_a_restart_applied_or_not,
    the_newest_value_wins_wherever_it_is,
    a_deleted_row_is_gone_wherever_it_was,
    tables_do_not_mix,
    later_operations_of_a_batch_win,
    a_range_is_in_key_order_and_paged,
    a_range_skips_many_deleted_rows,
    a_range_is_bounded_by_bytes,
    the_longest_key_fits,
    large_values_fit,
    a_stream_is_read_by_position,
    a_stream_is_truncated_and_trimmed,
    streams_do_not_mix,
    hard_states_are_replaced,
    hard_states_are_deleted,
    a_full_store_writes_nothing_and_stays_usable,
    a_full_store_lets_logs_shrink,
    random_operations_match_a_model,
    a_reader_outlives_changes,
    the_scrubber_reads_every_row,
    derived_rows_are_visible_immediately_and_flushed_with_a_round,
    a_crash_loses_unflushed_derived_rows,
    the_journal_is_trimmed_though_only_derived_rows_follow,
    a_crash_goes_back_to_the_last_flushed_run,
    a_range_is_a_consistent_snapshot,
    a_file_has_exactly_the_rows_derived_before,
    a_file_without_rows_is_valid,
    a_file_is_read_in_parts,
    a_file_with_another_checksum_is_removed,
    a_restart_keeps_only_complete_files,
    all_files_of_an_owner_but_one_are_removed,
    a_damaged_file_changes_nothing,
    an_interrupted_load_leaves_no_marker,
    a_full_store_rejects_a_load_and_stays_usable,
    random_groups_are_saved_and_loaded,
);
