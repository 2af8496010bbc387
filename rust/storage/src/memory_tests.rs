//! The differences from a real disk: syncs and crashes on command.

use super::*;

fn put(key: &'static str) -> Vec<JournalOp> {
    let (key, value) = (
        Bytes::from_static(key.as_bytes()),
        Some(Bytes::from_static(b"value")),
    );
    vec![JournalOp::Write(vec![StateWrite {
        table: Table::Records,
        key,
        value,
    }])]
}

fn has(store: &MemoryStore, key: &str) -> bool {
    store
        .reader()
        .get(Table::Records, key.as_bytes())
        .unwrap()
        .is_some()
}

#[test]
fn a_batch_is_invisible_until_its_sync_returns() {
    let mut store = MemoryStore::new();
    store.begin_commit(put("key")).unwrap();
    assert!(store.is_committing() && !has(&store, "key"));
    store.finish_commit();
    assert!(!store.is_committing() && has(&store, "key"));
}

#[test]
fn a_crash_keeps_synced_batches_and_the_current_one_atomically() {
    for (in_flight, kept) in [(InFlight::Lost, false), (InFlight::Kept, true)] {
        let mut store = MemoryStore::new();
        store.commit(&put("old")).unwrap();
        store.begin_commit([put("a"), put("b")].concat()).unwrap();
        store.crash(in_flight);
        assert!(has(&store, "old"));
        assert_eq!((has(&store, "a"), has(&store, "b")), (kept, kept));
        store.commit(&put("next")).unwrap();
        store.crash(in_flight);
        assert!(has(&store, "next"));
    }
}

#[test]
fn a_clone_is_a_snapshot() {
    let mut store = MemoryStore::new();
    store.begin_commit(put("key")).unwrap();
    let mut copy = store.clone();
    store.finish_commit();
    assert!(has(&store, "key") && !has(&copy, "key"));
    copy.crash(InFlight::Lost);
    assert!(!has(&copy, "key"));
}

#[test]
fn a_broken_disk_fails_permanently() {
    let mut store = MemoryStore::new();
    store.fail("broken");
    for _ in 0..2 {
        assert_eq!(
            store.commit(&put("key")),
            Err(CommitError::Fatal("broken".into()))
        );
    }
}

#[test]
fn a_corrupt_row_is_an_error_until_it_is_written_again() {
    let mut store = MemoryStore::new();
    for key in ["a", "b", "c"] {
        store.commit(&put(key)).unwrap();
    }
    store.corrupt(Table::Records, b"b");
    let reader = store.reader();
    assert!(matches!(
        reader.get(Table::Records, b"b"),
        Err(ReadError::Corrupt { .. })
    ));
    let page = reader.range(Table::Records, b"", None, 9, 99).unwrap();
    assert_eq!((page.rows.len(), page.next), (1, Some("b".into())));
    assert!(reader.range(Table::Records, b"b", None, 9, 99).is_err());
    store.commit(&put("b")).unwrap();
    assert!(has(&store, "b"));
}

#[test]
fn replaced_and_deleted_bytes_are_not_counted() {
    let mut store = MemoryStore::new();
    for _ in 0..3 {
        store.commit(&put("key")).unwrap();
        store
            .commit(&[JournalOp::PutHard {
                key: "hard".into(),
                value: "v".into(),
            }])
            .unwrap();
    }
    assert_eq!(store.bytes(), 3 + 5 + 1);
    let delete = StateWrite {
        table: Table::Records,
        key: "key".into(),
        value: None,
    };
    store.commit(&[JournalOp::Write(vec![delete])]).unwrap();
    assert_eq!(store.bytes(), 1);
}
