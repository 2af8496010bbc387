use quorate_core::key::Key;
use quorate_raft::types::{LogIndex, Term};

use super::*;

const GROUP: GroupId = GroupId(2);

fn row(name: &str) -> Bytes {
    rows::record_key(GROUP, &Key::try_from(name).unwrap())
}

fn write(name: &str, value: Option<&'static str>, condition: Condition) -> Write {
    Write {
        key: Key::try_from(name).unwrap(),
        value: value.map(Bytes::from),
        condition,
    }
}

fn apply(store: &mut Store, index: u64, command: &Command) -> Outcome {
    let position = LogPosition {
        term: Term(1),
        index: LogIndex(index),
    };
    store.execute(position, WallTime(index), command.clone())
}

fn record(version: u64) -> Bytes {
    rows::encode_record(version, WallTime(0), Bytes::new())
}

fn ok(index: u64) -> Outcome {
    Outcome::Done { index, term: 1 }
}

#[test]
fn a_plain_write_needs_no_row() {
    let mut store = Store::resume(GROUP, None).expect("it needs no row");
    let put = Command::Write(vec![write("k", Some("v"), Condition::Any)]);
    assert!(store.required_rows(&put).is_empty());
    assert_eq!(apply(&mut store, 1, &put), ok(1));
    let written = store.take();
    let record = rows::decode_record(written[&row("k")].as_ref().unwrap()).unwrap();
    assert_eq!(
        (record.version, record.time, &record.value[..]),
        (1, WallTime(1), &b"v"[..])
    );
    assert!(store.take().is_empty());
}

#[test]
fn a_condition_sees_the_commands_before_it_in_the_same_batch() {
    let mut store = Store::resume(GROUP, None).expect("it needs no row");
    let create = Command::Write(vec![write("k", Some("1"), Condition::Absent)]);
    assert_eq!(store.required_rows(&create), [row("k")]);
    assert!(!store.is_known(&row("k")));
    store.learn(row("k"), None).expect("an absent row");
    assert_eq!(apply(&mut store, 1, &create), ok(1));
    let failed = |current| Outcome::ConditionFailed { write: 0, current };
    assert_eq!(apply(&mut store, 2, &create), failed(Some(1)));
    let swap = |version| Command::Write(vec![write("k", Some("2"), Condition::Version(version))]);
    assert_eq!(apply(&mut store, 3, &swap(2)), failed(Some(1)));
    assert_eq!(apply(&mut store, 4, &swap(1)), ok(4));
    let delete = Command::Write(vec![write("k", None, Condition::Version(4))]);
    assert_eq!(apply(&mut store, 5, &delete), ok(5));
    assert_eq!(apply(&mut store, 6, &swap(4)), failed(None));
    assert_eq!(store.take(), BTreeMap::from([(row("k"), None)]));
    assert!(!store.is_known(&row("k")), "the next batch reads again");
}

#[test]
fn a_batch_is_atomic() {
    let mut store = Store::resume(GROUP, None).expect("it needs no row");
    let batch = Command::Write(vec![
        write("a", Some("1"), Condition::Any),
        write("b", Some("1"), Condition::Absent),
        write("c", None, Condition::Version(7)),
    ]);
    assert_eq!(store.required_rows(&batch), [row("b"), row("c")]);
    store.learn(row("b"), None).expect("an absent row");
    store.learn(row("c"), Some(&record(6))).expect("a record");
    let failed = Outcome::ConditionFailed {
        write: 2,
        current: Some(6),
    };
    assert_eq!(apply(&mut store, 9, &batch), failed);
    assert!(store.take().is_empty());
    store.learn(row("b"), None).expect("an absent row");
    store.learn(row("c"), Some(&record(7))).expect("a record");
    assert_eq!(apply(&mut store, 10, &batch), ok(10));
    assert_eq!(store.take().len(), 3);
}

#[test]
fn an_entry_is_stored_under_its_log_index() {
    let mut store = Store::resume(GROUP, None).expect("it needs no row");
    let append = Command::Append {
        source: "web".to_owned(),
        data: Bytes::from_static(b"line"),
    };
    assert_eq!(apply(&mut store, 4, &append), ok(4));
    let written = store.take();
    let (row, value) = written.first_key_value().unwrap();
    let entry = rows::decode_entry(row, value.as_ref().unwrap()).unwrap();
    assert_eq!((entry.id, entry.term, entry.time), (4, 1, WallTime(4)));
    assert_eq!((&*entry.source, &entry.data[..]), ("web", &b"line"[..]));
}
