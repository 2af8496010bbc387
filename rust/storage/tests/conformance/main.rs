//! The contract of a store, run against both: the one on LMDB and its twin in memory. They differ in how a store is
//! opened and how it is restarted, in nothing else.

mod suite;

use quorate_storage::memory::InFlight;
use quorate_storage::{DataDir, LmdbStore, MemoryStore, Options, Store};
use tempfile::TempDir;

/// A store under test and what keeps its contents.
trait Bench {
    /// An empty store.
    fn new() -> Self;
    /// An empty store with room for about a megabyte.
    fn small() -> Self;
    fn store(&mut self) -> &mut dyn Store;
    /// Stops without ceremony and starts again from what is durable.
    fn restart(&mut self);
}

struct Memory(MemoryStore);

impl Bench for Memory {
    fn new() -> Self {
        Memory(MemoryStore::new())
    }

    fn small() -> Self {
        let mut store = MemoryStore::new();
        store.set_capacity(Some(1 << 20));
        Memory(store)
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }

    fn restart(&mut self) {
        self.0.crash(InFlight::Lost);
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
    a_range_passes_over_many_deleted_rows,
    a_range_is_bounded_by_bytes,
    the_longest_key_fits,
    large_values_fit,
    a_stream_is_read_by_position,
    a_stream_is_truncated_and_trimmed,
    streams_do_not_mix,
    hard_states_are_replaced,
    a_full_store_writes_nothing_and_goes_on,
    a_full_store_lets_logs_shrink,
    random_operations_match_a_model,
    a_reader_outlives_changes,
    the_scrubber_walks_every_row,
    derived_rows_are_visible_at_once_and_settle_with_a_round,
    a_crash_takes_derived_rows_that_no_round_has_settled,
    the_journal_is_trimmed_though_only_derived_rows_follow,
    a_crash_goes_back_to_the_last_run_that_settled,
);
