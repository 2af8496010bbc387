//! Rows of the state: what is visible, in which order, and for how long.

use bytes::Bytes;
use quorate_storage::limits::{MAX_HARD_KEY_BYTES, MAX_KEY_BYTES};
use quorate_storage::store::TABLES;
use quorate_storage::{JournalOp, Scrubber, Table};

use super::{A, append, apply_all, delete, get, put, scan, write};
use crate::Bench;

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

pub(crate) fn a_range_skips_many_deleted_rows<T: Bench>() {
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

pub(crate) fn a_reader_outlives_changes<T: Bench>() {
    const LAST: u64 = 200;
    let number = |value: &Bytes| -> u64 { std::str::from_utf8(value).unwrap().parse().unwrap() };
    let mut bench = T::new();
    let reader = bench.store().reader();
    let seen = std::thread::spawn(move || {
        let mut last = 0;
        while last < LAST {
            if let Some(value) = reader.get(Table::Records, b"each").unwrap() {
                let now = number(&value);
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
            let page = reader.range(Table::Records, b"", None, 10, 1000).unwrap();
            if let [(_, each), (_, even)] = &page.rows[..] {
                let (each, even) = (number(each), number(even));
                assert!(
                    each == even || each == even + 1,
                    "a page is a consistent snapshot, not {each} and {even}"
                );
            }
        }
    });
    for value in 0..=LAST {
        let mut writes = vec![put(Table::Records, "each", format!("{value}"))];
        if value % 2 == 0 {
            writes.push(put(Table::Records, "even", format!("{value}")));
        }
        write(bench.store(), writes);
        bench.store().apply_step(usize::MAX).unwrap();
    }
    seen.join().unwrap();
}

pub(crate) fn the_scrubber_reads_every_row<T: Bench>() {
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
            assert_eq!(found.corrupt, None);
            rows += found.rows;
            if found.finished {
                break;
            }
        }
        assert_eq!(rows, 50 * TABLES.len());
    }
}
