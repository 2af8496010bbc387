//! Streams and hard states.

use bytes::Bytes;
use quorate_storage::{Bounds, JournalOp, StreamId, Table};

use super::{A, B, append, get, positions, put, write};
use crate::Bench;

pub(crate) fn a_stream_is_read_by_position<T: Bench>() {
    let mut bench = T::new();
    assert_eq!(bench.store().reader().log_bounds(A).unwrap(), None);
    let batch: Vec<JournalOp> = (10..20).map(|i| append(A, i, format!("entry {i}"))).collect();
    bench.store().commit(&batch).unwrap();
    bench.restart();
    let reader = bench.store().reader();
    assert_eq!(
        reader.log_bounds(A).unwrap(),
        Some(Bounds { first: 10, last: 19 })
    );
    assert_eq!(
        reader.log(A, 18, 9, 999).unwrap(),
        [(18, "entry 18".into()), (19, "entry 19".into())]
    );
    assert_eq!(reader.log(A, 0, 3, 999).unwrap().len(), 3);
    assert_eq!(reader.log(A, 0, 99, 17).unwrap().len(), 2, "bounded by bytes");
    assert_eq!(reader.log(A, 0, 99, 1).unwrap().len(), 1, "at least one");
    assert_eq!(reader.log(A, 20, 9, 999).unwrap(), []);
}

pub(crate) fn a_stream_is_truncated_and_trimmed<T: Bench>() {
    let mut bench = T::new();
    let batch: Vec<JournalOp> = (1..=1000).map(|i| append(A, i, vec![b'e'; 100])).collect();
    bench.store().commit(&batch).unwrap();
    bench
        .store()
        .commit(&[JournalOp::Truncate { stream: A, from: 901 }])
        .unwrap();
    bench
        .store()
        .commit(&[JournalOp::Trim {
            stream: A,
            through: 600,
        }])
        .unwrap();
    bench.restart();
    assert_eq!(
        positions(&*bench.store().reader(), A),
        (601..=900).collect::<Vec<_>>()
    );
    bench.store().commit(&[append(A, 901, "again")]).unwrap();
    let reader = bench.store().reader();
    assert_eq!(
        reader.log_bounds(A).unwrap(),
        Some(Bounds {
            first: 601,
            last: 901
        })
    );
    bench
        .store()
        .commit(&[JournalOp::Trim {
            stream: A,
            through: u64::MAX,
        }])
        .unwrap();
    assert_eq!(reader.log_bounds(A).unwrap(), None);
    bench
        .store()
        .commit(&[JournalOp::Truncate { stream: A, from: 0 }])
        .unwrap();
    assert_eq!(positions(&*reader, A), []);
}

pub(crate) fn streams_do_not_mix<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    write(store, [put(Table::Records, "key", "value")]);
    let batch: Vec<JournalOp> = (1..=5)
        .flat_map(|i| [append(A, i, "a"), append(B, i, "b")])
        .collect();
    store.commit(&batch).unwrap();
    store
        .commit(&[
            JournalOp::Trim {
                stream: A,
                through: 2,
            },
            JournalOp::Truncate { stream: B, from: 2 },
        ])
        .unwrap();
    assert_eq!(positions(&*store.reader(), A), [3, 4, 5]);
    assert_eq!(positions(&*store.reader(), B), [1]);
    assert_eq!(positions(&*store.reader(), StreamId(u64::MAX)), []);
    bench.restart();
    assert_eq!(get(bench.store(), Table::Records, "key").unwrap(), "value");
}

pub(crate) fn hard_states_are_replaced<T: Bench>() {
    let mut bench = T::new();
    assert_eq!(bench.store().reader().get_hard(b"vote").unwrap(), None);
    for term in 0..4 {
        let value = Bytes::from(format!("term {term}"));
        bench
            .store()
            .commit(&[JournalOp::PutHard {
                key: "vote".into(),
                value: value.clone(),
            }])
            .unwrap();
        bench.restart();
        assert_eq!(bench.store().reader().get_hard(b"vote").unwrap(), Some(value));
    }
    assert_eq!(bench.store().reader().get_hard(b"").unwrap(), None);
}

pub(crate) fn hard_states_are_deleted<T: Bench>() {
    let mut bench = T::new();
    let put = |key: &'static str| JournalOp::PutHard {
        key: key.into(),
        value: "value".into(),
    };
    let delete = JournalOp::DeleteHard { key: "vote".into() };
    bench.store().commit(&[put("vote"), put("votes")]).unwrap();
    for _ in 0..2 {
        // Deleting a missing hard state is valid.
        bench.store().commit(std::slice::from_ref(&delete)).unwrap();
        bench.restart();
        let reader = bench.store().reader();
        assert_eq!(reader.get_hard(b"vote").unwrap(), None);
        assert_eq!(reader.get_hard(b"votes").unwrap(), Some("value".into()));
    }
    bench.store().commit(&[delete, put("vote")]).unwrap();
    assert!(
        bench.store().reader().get_hard(b"vote").unwrap().is_some(),
        "in order"
    );
}
