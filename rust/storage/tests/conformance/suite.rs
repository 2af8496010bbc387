//! One function for each property of the contract.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_storage::store::{MAX_HARD_KEY_BYTES, MAX_KEY_BYTES, TABLES};
use quorate_storage::{Bounds, CommitError, JournalOp, Reader, Scrubber, StateWrite, Store, StreamId, Table};

use super::Bench;

const A: StreamId = StreamId(1);
const B: StreamId = StreamId(256);

fn put(table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> StateWrite {
    StateWrite {
        table,
        key: key.into(),
        value: Some(value.into()),
    }
}

fn delete(table: Table, key: impl Into<Bytes>) -> StateWrite {
    StateWrite {
        table,
        key: key.into(),
        value: None,
    }
}

fn write(store: &mut dyn Store, writes: impl IntoIterator<Item = StateWrite>) {
    store
        .commit(&[JournalOp::Write(writes.into_iter().collect())])
        .unwrap();
}

fn append(stream: StreamId, position: u64, bytes: impl Into<Bytes>) -> JournalOp {
    JournalOp::Append {
        stream,
        position,
        bytes: bytes.into(),
    }
}

fn get(store: &mut dyn Store, table: Table, key: &str) -> Option<Bytes> {
    store.reader().get(table, key.as_bytes()).unwrap()
}

fn apply_all(store: &mut dyn Store) {
    while store.unapplied_bytes() > 0 {
        while store.apply_step(1000).unwrap() {}
    }
}

/// All rows of the range, page by page.
fn scan(
    reader: &dyn Reader,
    table: Table,
    start: &[u8],
    end: Option<&[u8]>,
    rows: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut all = Vec::new();
    let mut next = Some(Bytes::copy_from_slice(start));
    while let Some(start) = next {
        let page = reader.range(table, &start, end, rows, usize::MAX).unwrap();
        assert!(page.rows.len() <= rows);
        assert!(
            page.next
                .as_ref()
                .is_none_or(|next| *next > start || !page.rows.is_empty())
        );
        all.extend(page.rows);
        next = page.next;
    }
    all
}

fn positions(reader: &dyn Reader, stream: StreamId) -> Vec<u64> {
    let entries = reader.log(stream, 0, usize::MAX, usize::MAX).unwrap();
    entries.into_iter().map(|(position, _)| position).collect()
}

pub(crate) fn a_row_is_visible_once_committed<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    assert_eq!(get(store, Table::Records, "key"), None);
    write(
        store,
        [
            put(Table::Records, "key", "value"),
            put(Table::TokenIndex, "token", ""),
        ],
    );
    assert_eq!(get(store, Table::Records, "key").unwrap(), "value");
    assert_eq!(get(store, Table::TokenIndex, "token").unwrap(), "");
    assert_eq!(get(store, Table::Records, ""), None);
    assert_eq!(
        store
            .reader()
            .get(Table::Records, &[0; MAX_KEY_BYTES + 1])
            .unwrap(),
        None
    );
}

pub(crate) fn rows_survive_a_restart_applied_or_not<T: Bench>() {
    let mut bench = T::new();
    write(bench.store(), [put(Table::Records, "applied", "1")]);
    apply_all(bench.store());
    write(bench.store(), [put(Table::Records, "waiting", "2")]);
    for _ in 0..3 {
        bench.restart();
        assert_eq!(get(bench.store(), Table::Records, "applied").unwrap(), "1");
        assert_eq!(get(bench.store(), Table::Records, "waiting").unwrap(), "2");
    }
    apply_all(bench.store());
    bench.restart();
    assert_eq!(get(bench.store(), Table::Records, "waiting").unwrap(), "2");
}

pub(crate) fn the_newest_value_wins_wherever_it_is<T: Bench>() {
    let mut bench = T::new();
    for round in 0..6 {
        let value = format!("value {round}");
        write(bench.store(), [put(Table::Records, "key", value.clone())]);
        assert_eq!(get(bench.store(), Table::Records, "key").unwrap(), value);
        if round % 2 == 0 {
            apply_all(bench.store());
        }
        bench.restart();
        assert_eq!(get(bench.store(), Table::Records, "key").unwrap(), value);
        assert_eq!(
            scan(&*bench.store().reader(), Table::Records, b"", None, 10),
            [("key".into(), value.into())]
        );
    }
}

pub(crate) fn a_deleted_row_is_gone_wherever_it_was<T: Bench>() {
    let mut bench = T::new();
    for applied in [false, true] {
        write(
            bench.store(),
            [
                put(Table::Records, "key", "value"),
                put(Table::Records, "other", "value"),
            ],
        );
        if applied {
            apply_all(bench.store());
        }
        write(
            bench.store(),
            [
                delete(Table::Records, "key"),
                delete(Table::Records, "never there"),
            ],
        );
        assert_eq!(get(bench.store(), Table::Records, "key"), None);
        assert_eq!(
            scan(&*bench.store().reader(), Table::Records, b"", None, 10).len(),
            1
        );
        apply_all(bench.store());
        assert_eq!(get(bench.store(), Table::Records, "key"), None);
        bench.restart();
        assert_eq!(get(bench.store(), Table::Records, "key"), None);
    }
}

pub(crate) fn tables_do_not_mix<T: Bench>() {
    let mut bench = T::new();
    for table in TABLES {
        write(bench.store(), [put(table, "key", format!("{table:?}"))]);
    }
    for applied in [false, true] {
        for table in TABLES {
            assert_eq!(get(bench.store(), table, "key").unwrap(), format!("{table:?}"));
        }
        if !applied {
            apply_all(bench.store());
        }
    }
}

pub(crate) fn later_operations_of_a_batch_win<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    let batch = [
        JournalOp::Write(vec![put(Table::Meta, "key", "1"), put(Table::Meta, "key", "2")]),
        append(A, 5, "first"),
        JournalOp::Truncate { stream: A, from: 5 },
        append(A, 5, "second"),
        JournalOp::Write(vec![delete(Table::Meta, "key"), put(Table::Meta, "key", "3")]),
    ];
    store.commit(&batch).unwrap();
    assert_eq!(get(store, Table::Meta, "key").unwrap(), "3");
    assert_eq!(store.reader().log(A, 0, 9, 999).unwrap(), [(5, "second".into())]);
}

pub(crate) fn a_range_is_in_key_order_and_paged<T: Bench>() {
    let mut bench = T::new();
    // Even keys applied, odd ones not, every fifth deleted.
    write(
        bench.store(),
        (0..100)
            .step_by(2)
            .map(|i| put(Table::Records, format!("{i:02}"), format!("v{i}"))),
    );
    apply_all(bench.store());
    write(
        bench.store(),
        (1..100)
            .step_by(2)
            .map(|i| put(Table::Records, format!("{i:02}"), format!("v{i}"))),
    );
    write(
        bench.store(),
        (0..100)
            .step_by(5)
            .map(|i| delete(Table::Records, format!("{i:02}"))),
    );
    let expected: Vec<(Bytes, Bytes)> = (0..100)
        .filter(|i| i % 5 != 0)
        .map(|i| (format!("{i:02}").into(), format!("v{i}").into()))
        .collect();
    let reader = bench.store().reader();
    for rows in [1, 3, 7, 1000] {
        assert_eq!(scan(&*reader, Table::Records, b"", None, rows), expected);
    }
    assert_eq!(
        scan(&*reader, Table::Records, b"11", Some(b"14"), 9),
        expected[8..11]
    );
    assert_eq!(scan(&*reader, Table::Records, b"99", None, 9), expected[79..]);
    assert_eq!(scan(&*reader, Table::Records, b"5", Some(b"4"), 9), []);
    assert_eq!(scan(&*reader, Table::Records, b"", Some(b""), 9), []);
    assert_eq!(scan(&*reader, Table::Meta, b"", None, 9), []);
}

pub(crate) fn a_range_passes_over_many_deleted_rows<T: Bench>() {
    let mut bench = T::new();
    let key = |i: u32| i.to_be_bytes().to_vec();
    write(bench.store(), (0..3000).map(|i| put(Table::Records, key(i), "v")));
    apply_all(bench.store());
    write(bench.store(), (0..2999).map(|i| delete(Table::Records, key(i))));
    let reader = bench.store().reader();
    assert_eq!(
        scan(&*reader, Table::Records, b"", None, 2),
        [(key(2999).into(), "v".into())]
    );
}

pub(crate) fn a_range_is_bounded_by_bytes<T: Bench>() {
    let mut bench = T::new();
    write(
        bench.store(),
        (0..10).map(|i| put(Table::Records, format!("{i}"), vec![b'v'; 99])),
    );
    let reader = bench.store().reader();
    assert_eq!(
        reader
            .range(Table::Records, b"", None, 100, 350)
            .unwrap()
            .rows
            .len(),
        3
    );
    let page = reader.range(Table::Records, b"", None, 100, 1).unwrap();
    assert_eq!(
        (page.rows.len(), page.next),
        (1, Some("1".into())),
        "at least one row"
    );
}

pub(crate) fn the_longest_key_fits<T: Bench>() {
    let mut bench = T::new();
    let keys = [vec![0; MAX_KEY_BYTES], vec![0xff; MAX_KEY_BYTES]];
    for table in TABLES {
        write(bench.store(), keys.iter().map(|key| put(table, key.clone(), "v")));
    }
    let name = Bytes::from(vec![0; MAX_HARD_KEY_BYTES]);
    bench
        .store()
        .commit(&[JournalOp::PutHard {
            key: name.clone(),
            value: "v".into(),
        }])
        .unwrap();
    apply_all(bench.store());
    bench.restart();
    for table in TABLES {
        assert_eq!(scan(&*bench.store().reader(), table, b"", None, 9).len(), 2);
        assert_eq!(bench.store().reader().get(table, &keys[0]).unwrap().unwrap(), "v");
    }
    assert_eq!(bench.store().reader().get_hard(&name).unwrap().unwrap(), "v");
}

pub(crate) fn large_values_fit<T: Bench>() {
    let mut bench = T::new();
    let large = |byte: u8| Bytes::from(vec![byte; (1 << 20) + 7]);
    write(
        bench.store(),
        (0..4).map(|i| put(Table::Records, vec![i], large(i))),
    );
    bench.store().commit(&[append(A, 1, large(9))]).unwrap();
    for _ in 0..2 {
        for i in 0..4 {
            assert_eq!(
                bench.store().reader().get(Table::Records, &[i]).unwrap().unwrap(),
                large(i)
            );
        }
        assert_eq!(bench.store().reader().log(A, 1, 1, 1).unwrap(), [(1, large(9))]);
        bench.restart();
        apply_all(bench.store());
    }
}

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

pub(crate) fn a_full_store_writes_nothing_and_goes_on<T: Bench>() {
    let mut bench = T::small();
    let mut written = 0;
    let refused = loop {
        assert!(written < 1000, "a small store takes no end of rows");
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
        assert!(position < 1000, "a small store takes no end of entries");
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

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<JournalOp>),
    Apply(usize),
    Restart,
}

fn any_write() -> impl Strategy<Value = StateWrite> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    (prop::sample::select(&TABLES[..]), 0..20u8, value).prop_map(|(table, key, value)| StateWrite {
        table,
        key: vec![key].into(),
        value: value.map(Bytes::from),
    })
}

fn any_op() -> impl Strategy<Value = JournalOp> {
    let stream = prop::sample::select(&[A, B][..]);
    prop_oneof![
        4 => prop::collection::vec(any_write(), 0..8).prop_map(JournalOp::Write),
        2 => (stream.clone(), 0..30u64, any::<u8>()).prop_map(|(stream, position, byte)| append(stream, position, vec![byte])),
        1 => (stream.clone(), 0..30u64).prop_map(|(stream, from)| JournalOp::Truncate { stream, from }),
        1 => (stream, 0..30u64).prop_map(|(stream, through)| JournalOp::Trim { stream, through }),
        1 => (0..3u8, any::<u8>()).prop_map(|(key, value)| JournalOp::PutHard { key: vec![key].into(), value: vec![value].into() }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(any_op(), 0..5).prop_map(Step::Commit),
        3 => (1..200usize).prop_map(Step::Apply),
        1 => Just(Step::Restart),
    ]
}

/// What a store should hold, in the simplest form.
#[derive(Default)]
struct Model {
    tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
    streams: BTreeMap<StreamId, BTreeMap<u64, Bytes>>,
    hard: BTreeMap<Bytes, Bytes>,
}

impl Model {
    fn perform(&mut self, op: &JournalOp) {
        match op.clone() {
            JournalOp::Write(writes) => {
                for StateWrite { table, key, value } in writes {
                    let rows = self.tables.entry(table).or_default();
                    match value {
                        Some(value) => rows.insert(key, value),
                        None => rows.remove(&key),
                    };
                }
            }
            JournalOp::Append {
                stream,
                position,
                bytes,
            } => {
                self.streams.entry(stream).or_default().insert(position, bytes);
            }
            JournalOp::Truncate { stream, from } => {
                self.streams
                    .entry(stream)
                    .or_default()
                    .retain(|position, _| *position < from);
            }
            JournalOp::Trim { stream, through } => {
                self.streams
                    .entry(stream)
                    .or_default()
                    .retain(|position, _| *position > through);
            }
            JournalOp::PutHard { key, value } => {
                self.hard.insert(key, value);
            }
        }
    }

    fn check(&self, reader: &dyn Reader) {
        for table in TABLES {
            let rows: Vec<_> = self
                .tables
                .get(&table)
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(scan(reader, table, b"", None, 3), rows, "{table:?}");
            for key in 0..20 {
                let value = self
                    .tables
                    .get(&table)
                    .and_then(|rows| rows.get(&[key][..]))
                    .cloned();
                assert_eq!(reader.get(table, &[key]).unwrap(), value);
            }
        }
        for stream in [A, B] {
            let entries: Vec<_> = self
                .streams
                .get(&stream)
                .into_iter()
                .flatten()
                .map(|(p, e)| (*p, e.clone()))
                .collect();
            assert_eq!(reader.log(stream, 0, usize::MAX, usize::MAX).unwrap(), entries);
            let bounds = entries.first().zip(entries.last()).map(|(f, l)| Bounds {
                first: f.0,
                last: l.0,
            });
            assert_eq!(reader.log_bounds(stream).unwrap(), bounds);
        }
        for key in 0..3 {
            assert_eq!(
                reader.get_hard(&[key]).unwrap(),
                self.hard.get(&[key][..]).cloned()
            );
        }
    }
}

pub(crate) fn random_operations_match_a_model<T: Bench>() {
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = prop::collection::vec(any_step(), 1..60);
    runner
        .run(&steps, |steps| {
            let mut bench = T::new();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Commit(batch) => {
                        bench.store().commit(&batch).unwrap();
                        batch.iter().for_each(|op| model.perform(op));
                    }
                    Step::Apply(budget) => {
                        bench.store().apply_step(budget).unwrap();
                    }
                    Step::Restart => bench.restart(),
                }
                model.check(&*bench.store().reader());
            }
            Ok(())
        })
        .unwrap();
}

pub(crate) fn a_reader_outlives_changes<T: Bench>() {
    let mut bench = T::new();
    let reader = bench.store().reader();
    let seen = std::thread::spawn(move || {
        let mut last = 0;
        while last < 200 {
            if let Some(value) = reader.get(Table::Records, b"counter").unwrap() {
                let now: u32 = std::str::from_utf8(&value).unwrap().parse().unwrap();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
            let page = reader.range(Table::Records, b"", None, 10, 1000).unwrap();
            if let [(_, counter), (_, twin)] = &page.rows[..] {
                assert_eq!(counter, twin, "a page is one moment's view");
            }
        }
    });
    for value in 0..=200 {
        let value = format!("{value}");
        let writes = [
            put(Table::Records, "counter", value.clone()),
            put(Table::Records, "twin", value),
        ];
        write(bench.store(), writes);
        bench.store().apply_step(1).unwrap();
    }
    seen.join().unwrap();
}

pub(crate) fn the_scrubber_walks_every_row<T: Bench>() {
    let mut bench = T::new();
    for table in TABLES {
        write(
            bench.store(),
            (0..50).map(|i| put(table, format!("{i}"), vec![b'v'; i])),
        );
    }
    apply_all(bench.store());
    let reader = bench.store().reader();
    let mut scrubber = Scrubber::new();
    for _ in 0..2 {
        let mut rows = 0;
        loop {
            let found = scrubber.step(&*reader, 300).unwrap();
            assert_eq!(found.rotten, None);
            rows += found.rows;
            if found.finished {
                break;
            }
        }
        assert_eq!(rows, 150);
    }
}
