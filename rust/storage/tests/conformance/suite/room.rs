//! Stores without room.

use quorate_storage::{CommitError, JournalOp, Table};

use super::{A, append, put, scan};
use crate::Bench;

pub(crate) fn a_full_store_writes_nothing_and_stays_usable<T: Bench>() {
    let mut bench = T::small();
    let mut written = 0;
    let refused = loop {
        assert!(written < 1000, "a small store becomes full of rows");
        let batch = [
            JournalOp::Write(vec![put(
                Table::Records,
                format!("{written:04}"),
                vec![b'v'; 10_000],
            )]),
            JournalOp::PutHard {
                key: "last".into(),
                value: format!("{written}").into(),
            },
        ];
        match bench.store().commit(&batch) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        match bench.store().apply_step(usize::MAX) {
            Ok(_) | Err(CommitError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(refused, CommitError::Full);
    assert!(written > 10, "only {written} rows fit");
    for _ in 0..2 {
        let reader = bench.store().reader();
        assert_eq!(scan(&*reader, Table::Records, b"", None, 7).len(), written);
        assert_eq!(
            reader.get_hard(b"last").unwrap().unwrap(),
            format!("{}", written - 1)
        );
        drop(reader);
        bench.restart();
    }
}

pub(crate) fn a_full_store_lets_logs_shrink<T: Bench>() {
    let mut bench = T::small();
    let store = bench.store();
    let mut position = 0;
    while store.commit(&[append(A, position, vec![b'e'; 10_000])]).is_ok() {
        position += 1;
        assert!(position < 1000, "a small store becomes full of entries");
    }
    store
        .commit(&[JournalOp::Trim {
            stream: A,
            through: position / 2,
        }])
        .unwrap();
    for _ in 0..3 {
        store
            .commit(&[JournalOp::Trim {
                stream: A,
                through: position / 2,
            }])
            .unwrap();
    }
    store.commit(&[append(A, position, "goes again")]).unwrap();
}
