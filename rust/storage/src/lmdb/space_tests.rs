//! Full disks and full maps.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::store::Table;

use super::failure_tests::{Folder, LOG, append, apply_all, put};
use super::*;

/// Options with a disk whose free space the test sets.
fn with_space(available: &Arc<AtomicU64>) -> Options {
    let available = Arc::clone(available);
    Options {
        reserve_bytes: 1 << 20,
        space: Arc::new(move |_| Ok(available.load(Ordering::SeqCst))),
        ..Options::default()
    }
}

#[test]
fn a_full_disk_is_detected_before_the_commit() {
    let folder = Folder::new();
    let available = Arc::new(AtomicU64::new(u64::MAX));
    let mut store = folder.open_with(&with_space(&available)).unwrap();
    store.commit(&[put("key", "old"), append(1, "entry")]).unwrap();
    available.store(1 << 20, Ordering::SeqCst);
    for batch in [
        put("key", "new"),
        append(2, "entry"),
        JournalOp::PutHard {
            key: "k".into(),
            value: "v".into(),
        },
    ] {
        assert_eq!(store.commit(&[batch]), Err(CommitError::Full));
    }
    store
        .commit(&[JournalOp::Trim {
            stream: LOG,
            through: 1,
        }])
        .unwrap();
    assert_eq!(
        store.reader().get(Table::Records, b"key").unwrap().unwrap(),
        "old"
    );
    assert_eq!(store.reader().log_bounds(LOG).unwrap(), None);

    available.store(1000, Ordering::SeqCst);
    assert_eq!(store.apply_step(usize::MAX), Err(CommitError::Full));
    available.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(
        store.commit(&[put("key", "new")]),
        Err(CommitError::Full),
        "not before the state has room"
    );
    store.commit(&[append(3, "entries need none of it")]).unwrap();
    assert_eq!(store.apply_step(usize::MAX), Ok(false));
    store.commit(&[put("key", "new")]).unwrap();
    assert_eq!(
        store.reader().get(Table::Records, b"key").unwrap().unwrap(),
        "new"
    );
}

#[test]
fn an_error_of_the_space_probe_is_fatal() {
    let folder = Folder::new();
    let space: SpaceProbe = Arc::new(|_| Err(io::Error::from_raw_os_error(libc::EIO)));
    let mut store = folder
        .open_with(&Options {
            space,
            ..Options::default()
        })
        .unwrap();
    for _ in 0..2 {
        assert!(
            matches!(store.commit(&[put("key", "value")]), Err(CommitError::Fatal(_))),
            "the store stays failed"
        );
    }
    assert!(store.reader().get(Table::Records, b"key").unwrap().is_none());
}

#[test]
fn rows_stay_in_the_memtable_until_the_state_has_room() {
    let folder = Folder::new();
    let small = Options {
        map_size: 256 << 10,
        ..Options::default()
    };
    let mut store = folder.open_with(&small).unwrap();
    let mut acknowledged = 0;
    while acknowledged < 1000 {
        match store.commit(&[put(format!("{acknowledged:04}"), vec![b'v'; 2000])]) {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                assert_eq!(error, CommitError::Full);
                break;
            }
        }
        if acknowledged % 7 == 0 {
            let _ = store.apply_step(usize::MAX);
        }
    }
    assert!((20..1000).contains(&acknowledged), "{acknowledged}");
    drop(store);
    let mut store = folder.open_with(&small).unwrap();
    let all = |store: &LmdbStore| {
        store
            .reader()
            .range(Table::Records, b"", None, 2000, usize::MAX)
            .unwrap()
            .rows
            .len()
    };
    assert_eq!(all(&store), acknowledged);
    assert_eq!(store.apply_step(usize::MAX), Err(CommitError::Full));
    drop(store);
    let mut store = folder.open().unwrap();
    apply_all(&mut store);
    assert_eq!(all(&store), acknowledged);
    store.commit(&[put("more", "goes")]).unwrap();
}

/// Derived rows are applied atomically; journalled rows as far as there is room.
#[test]
fn journalled_rows_are_applied_beside_derived_ones() {
    let folder = Folder::new();
    let small = Options {
        map_size: 256 << 10,
        ..Options::default()
    };
    let mut store = folder.open_with(&small).unwrap();
    let derived = StateWrite {
        table: Table::Groups,
        key: "row".into(),
        value: Some("derived".into()),
    };
    store.derived().apply_rows(vec![derived]);
    for number in 0..1000 {
        if store
            .commit(&[put(format!("{number:04}"), vec![b'v'; 2000])])
            .is_err()
        {
            break;
        }
    }
    let full = loop {
        match store.apply_step(16 << 10) {
            Ok(more) => assert!(more, "there is not room for all of it"),
            Err(error) => break error,
        }
    };
    assert_eq!(full, CommitError::Full);
    let used = store.gauge().read().unwrap().state.used_bytes;
    assert!(used > 64 << 10, "{used}");
    drop(store);
    let store = folder.open().unwrap();
    let row = store.reader().get(Table::Groups, b"row").unwrap();
    assert_eq!(row.as_deref(), Some(&b"derived"[..]));
}

/// Entries are trimmed as fast as they are written, with a small map.
#[test]
fn a_small_journal_is_reused() {
    let folder = Folder::new();
    let options = Options {
        journal_map_size: 1 << 20,
        zero_fill: 128 << 10,
        ..Options::default()
    };
    let mut store = folder.open_with(&options).unwrap();
    for i in 0..600 {
        store
            .commit(&[put(format!("{}", i % 10), vec![b'v'; 20_000])])
            .unwrap_or_else(|error| panic!("{i}: {error}"));
        if i % 5 == 0 {
            apply_all(&mut store);
        }
    }
    assert!(folder.copy("journal").len() <= 1 << 20);
}

#[test]
fn the_gauge_reports_what_is_full_and_the_remedy() {
    let folder = Folder::new();
    let available = Arc::new(AtomicU64::new(u64::MAX));
    let mut store = folder.open_with(&with_space(&available)).unwrap();
    let gauge = store.gauge();
    store.commit(&[put("key", "value")]).unwrap();
    assert_eq!(gauge.full_reason(), None);

    available.store(1000, Ordering::SeqCst);
    assert!(!gauge.has_refused(), "no row was rejected yet");
    let reason = gauge.full_reason().unwrap();
    assert!(
        reason.contains("1000 bytes left") && reason.contains("free disk space"),
        "{reason}"
    );
    assert!(
        reason.contains(&store.journal.shared().dir.path().display().to_string()),
        "{reason}"
    );
    assert_eq!(store.commit(&[put("key", "new")]), Err(CommitError::Full));
    assert!(gauge.has_refused());
    store
        .commit(&[JournalOp::Trim {
            stream: LOG,
            through: 1,
        }])
        .unwrap();
    assert!(
        gauge.has_refused(),
        "a batch that does not grow does not clear the mark"
    );

    available.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(gauge.full_reason(), None, "the file system is checked again");
    store.commit(&[put("key", "new")]).unwrap();
    assert!(!gauge.has_refused());

    apply_all(&mut store);
    let usage = gauge.read().unwrap();
    assert!(
        usage.state.used_bytes > 0 && usage.journal.used_bytes > 0,
        "{usage:?}"
    );
    drop(store);
    assert_eq!(gauge.read(), None, "a gauge does not keep the store open");
}
