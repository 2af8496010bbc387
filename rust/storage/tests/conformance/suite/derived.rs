//! Derived rows: visible immediately, flushed in whole runs and in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_core::store::{Query, Rows};
use quorate_storage::query::answer;
use quorate_storage::{StateWrite, Table};

use super::{apply_all, delete, get, put, scan, write};
use crate::Bench;

pub(crate) fn derived_rows_are_visible_immediately_and_flushed_with_a_round<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    let derived = store.derived();
    write(store, [put(Table::Records, "a", "journalled")]);
    assert_eq!(derived.apply_rows(vec![put(Table::Records, "a", "derived")]), 1);
    assert_eq!(
        derived.apply_rows(vec![
            put(Table::Groups, "applied", "2"),
            delete(Table::Records, "a")
        ]),
        2
    );
    assert_eq!(get(store, Table::Records, "a"), None);
    assert_eq!(get(store, Table::Groups, "applied").unwrap(), "2");
    assert!(derived.unapplied_bytes() > 0);
    assert_eq!(store.flushed(), 0);
    apply_all(store);
    assert_eq!(store.flushed(), 2);
    assert_eq!(store.unapplied_bytes(), 0);
    drop(derived);
    bench.restart();
    assert_eq!(get(bench.store(), Table::Records, "a"), None);
    assert_eq!(get(bench.store(), Table::Groups, "applied").unwrap(), "2");
}

pub(crate) fn a_crash_loses_unflushed_derived_rows<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    let derived = store.derived();
    write(
        store,
        [
            put(Table::Records, "a", "journalled"),
            put(Table::Records, "b", "1"),
        ],
    );
    derived.apply_rows(vec![
        put(Table::Records, "a", "derived"),
        put(Table::Groups, "applied", "1"),
    ]);
    // A row that is journalled later is durable by itself, even if the derived one under it is lost.
    derived.apply_rows(vec![put(Table::Records, "b", "2")]);
    write(store, [put(Table::Records, "b", "3")]);
    drop(derived);
    bench.restart();
    let store = bench.store();
    assert_eq!(get(store, Table::Records, "a").unwrap(), "journalled");
    assert_eq!(get(store, Table::Records, "b").unwrap(), "3");
    assert_eq!(get(store, Table::Groups, "applied"), None);
}

pub(crate) fn the_journal_is_trimmed_though_only_derived_rows_follow<T: Bench>() {
    let mut bench = T::new();
    write(bench.store(), [put(Table::Records, "a", "1")]);
    apply_all(bench.store());
    for run in 0..3 {
        bench
            .store()
            .derived()
            .apply_rows(vec![put(Table::Groups, "applied", format!("{run}"))]);
        apply_all(bench.store());
        bench.restart();
        assert_eq!(get(bench.store(), Table::Records, "a").unwrap(), "1");
        assert_eq!(
            get(bench.store(), Table::Groups, "applied").unwrap(),
            format!("{run}")
        );
    }
    write(bench.store(), [put(Table::Records, "a", "2")]);
    bench.restart();
    assert_eq!(get(bench.store(), Table::Records, "a").unwrap(), "2");
}

/// A page includes all rows of a derived run or none, regardless of their distance.
pub(crate) fn a_range_is_a_consistent_snapshot<T: Bench>() {
    let mut bench = T::new();
    let store = bench.store();
    let key = |number: u32| format!("{number:05}");
    // Unapplied deleted rows within the range.
    store.derived().apply_rows(
        (1..2000)
            .map(|number| delete(Table::Groups, key(number)))
            .collect(),
    );
    let (derived, reader) = (store.derived(), store.reader());
    let done = AtomicBool::new(false);
    let both = |value: Option<Bytes>| -> Vec<StateWrite> {
        let row = |number| StateWrite {
            table: Table::Groups,
            key: key(number).into(),
            value: value.clone(),
        };
        vec![row(0), row(2000)]
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut run = 0;
            while !done.load(Ordering::Relaxed) {
                run += 1;
                derived.apply_rows(both(Some(format!("{run}").into())));
                derived.apply_rows(both(None));
            }
        });
        let query = Query::Range {
            table: Table::Groups,
            start: key(0).into(),
            end: key(3000).into(),
            limit_rows: 10,
            limit_bytes: 1000,
        };
        for _ in 0..3000 {
            let Rows { rows, more } = answer(&*reader, &query).unwrap();
            // An incomplete page may end anywhere, but has no gaps.
            let whole = match &rows[..] {
                [] => !more,
                [first] => more && first.0 == key(0),
                [first, last] => first.1 == last.1,
                _ => false,
            };
            if !whole {
                done.store(true, Ordering::Relaxed);
                panic!("half a run: {rows:?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    ApplyRows(Vec<StateWrite>),
    Journal(Vec<StateWrite>),
    Apply(usize),
    Restart,
}

fn any_rows(tables: &'static [Table]) -> impl Strategy<Value = Vec<StateWrite>> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let row = (prop::sample::select(tables), 0..12u8, value).prop_map(|(table, key, value)| StateWrite {
        table,
        key: vec![key].into(),
        value: value.map(Bytes::from),
    });
    prop::collection::vec(row, 1..6)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any_rows(&[Table::Records, Table::Groups]).prop_map(Step::ApplyRows),
        2 => any_rows(&[Table::Meta, Table::TokenIndex]).prop_map(Step::Journal),
        3 => (1..300usize).prop_map(Step::Apply),
        1 => Just(Step::Restart),
    ]
}

type State = BTreeMap<(Table, Bytes), Bytes>;

fn perform(rows: &mut State, writes: &[StateWrite]) {
    for StateWrite { table, key, value } in writes.iter().cloned() {
        match value {
            Some(value) => rows.insert((table, key), value),
            None => rows.remove(&(table, key)),
        };
    }
}

pub(crate) fn a_crash_goes_back_to_the_last_flushed_run<T: Bench>() {
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = prop::collection::vec(any_step(), 1..60);
    runner
        .run(&steps, |steps| {
            let mut bench = T::new();
            let mut journalled = State::new();
            // The derived rows after each run.
            let mut runs = vec![State::new()];
            for step in steps {
                match step {
                    Step::ApplyRows(writes) => {
                        let mut rows = runs.last().unwrap().clone();
                        perform(&mut rows, &writes);
                        runs.push(rows);
                        let number = bench.store().derived().apply_rows(writes);
                        assert_eq!(number, runs.len() as u64 - 1);
                    }
                    Step::Journal(writes) => {
                        perform(&mut journalled, &writes);
                        write(bench.store(), writes);
                    }
                    Step::Apply(budget) => {
                        bench.store().apply_step(budget).unwrap();
                    }
                    Step::Restart => {
                        let flushed = bench.store().flushed() as usize;
                        runs = vec![runs.swap_remove(flushed)];
                        bench.restart();
                    }
                }
                let reader = bench.store().reader();
                for (tables, expected) in [
                    ([Table::Records, Table::Groups], runs.last().unwrap()),
                    ([Table::Meta, Table::TokenIndex], &journalled),
                ] {
                    for table in tables {
                        let rows: Vec<_> = expected
                            .iter()
                            .filter(|((of, _), _)| *of == table)
                            .map(|((_, key), value)| (key.clone(), value.clone()))
                            .collect();
                        assert_eq!(scan(&*reader, table, b"", None, 3), rows, "{table:?}");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
