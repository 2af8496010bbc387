//! Random operations, restarts and rounds of applying, against the simplest model of a store.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_storage::store::TABLES;
use quorate_storage::{Bounds, JournalOp, Reader, StateWrite, StreamId, Table};

use super::{A, B, append, scan};
use crate::Bench;

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
        2 => (0..3u8, any::<u8>()).prop_map(|(key, value)| JournalOp::PutHard { key: vec![key].into(), value: vec![value].into() }),
        1 => (0..3u8).prop_map(|key| JournalOp::DeleteHard { key: vec![key].into() }),
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
            JournalOp::DeleteHard { key } => {
                self.hard.remove(&key);
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
