use bytes::Bytes;
use quorate_raft::sessions::{SessionId, logged};
use quorate_raft::types::{LogIndex, Term};

use super::*;

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn put(name: &str, value: &'static str, condition: Condition) -> Command {
    let write = Write {
        key: key(name),
        value: Some(Bytes::from_static(value.as_bytes())),
        condition,
    };
    Command::Write(vec![write])
}

/// Commits a request at a time in milliseconds.
fn commit(log_model: &mut LogModel, millis: u64, request: Request<Command>) -> u64 {
    let index = log_model.last() + 1;
    let entry = Entry {
        term: Term(3),
        index: LogIndex(index),
        kind: EntryKind::Command(logged(WallTime(millis * 1000), request)),
    };
    log_model.commit(&entry).unwrap();
    index
}

fn in_session(session: u64, sequence: u64, acknowledged: u64, command: Command) -> Request<Command> {
    Request::InSession {
        session: SessionId(session),
        sequence,
        acknowledged,
        command,
    }
}

#[test]
fn the_state_after_every_entry_is_available() {
    let mut log_model = LogModel::default();
    let first = commit(
        &mut log_model,
        1,
        Request::Plain(put("a", "one", Condition::Absent)),
    );
    let refused = commit(
        &mut log_model,
        2,
        Request::Plain(put("a", "two", Condition::Absent)),
    );
    let second = commit(
        &mut log_model,
        3,
        Request::Plain(put("a", "three", Condition::Version(first))),
    );
    let version = |index| log_model.record_at(&key("a"), index).map(|record| record.version);
    assert_eq!(
        [
            version(0),
            version(first),
            version(refused),
            version(second),
            version(99)
        ],
        [None, Some(1), Some(1), Some(3), Some(3)]
    );
    let failed = Outcome::ConditionFailed {
        write: 0,
        current: Some(first),
    };
    assert_eq!(log_model.executions()[&refused].outcome, failed);
    assert!(log_model.executions()[&second].is_done());
    assert_eq!(log_model.records_at(0).len(), 0);
    assert_eq!(log_model.records_at(first).len(), 1);
}

#[test]
fn a_retry_in_a_session_is_not_executed_again() {
    let mut log_model = LogModel::default();
    let session = commit(&mut log_model, 0, Request::Open { idle_ms: 100 });
    let command = |value| put("a", value, Condition::Any);
    let executed = |log_model: &LogModel, index| log_model.executions().contains_key(&index);
    let first = commit(&mut log_model, 1, in_session(session, 2, 0, command("two")));
    let again = commit(&mut log_model, 2, in_session(session, 2, 0, command("two")));
    let earlier = commit(&mut log_model, 3, in_session(session, 1, 0, command("one")));
    assert!(executed(&log_model, first) && !executed(&log_model, again) && executed(&log_model, earlier));
    let calls = [first, again, earlier].map(|index| log_model.call(index));
    assert_eq!(calls, [Some((session, 2)), None, Some((session, 1))]);
    // Acknowledged commands are not executed again.
    let late = commit(&mut log_model, 4, in_session(session, 3, 4, command("three")));
    assert!(!executed(&log_model, late));
    // One millisecond beyond the idle timeout.
    let expired = commit(&mut log_model, 105, in_session(session, 9, 4, command("nine")));
    assert!(!executed(&log_model, expired));
}

#[test]
fn appended_entries_have_logged_time() {
    let mut log_model = LogModel::default();
    let append = |text: &'static str| {
        let (source, data) = ("web".to_owned(), Bytes::from_static(text.as_bytes()));
        Request::Plain(Command::Append { source, data })
    };
    let first = commit(&mut log_model, 9, append("one"));
    let second = commit(&mut log_model, 7, append("two"));
    let times: Vec<u64> = log_model.appended().values().map(|entry| entry.time.0).collect();
    assert_eq!(
        (first, second, times),
        (1, 2, vec![9_000, 9_000]),
        "logged time does not run backwards"
    );
}
