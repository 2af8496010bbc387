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
fn commit(ledger: &mut Ledger, millis: u64, request: Request<Command>) -> u64 {
    let index = ledger.last() + 1;
    let entry = Entry {
        term: Term(3),
        index: LogIndex(index),
        kind: EntryKind::Command(logged(WallTime(millis * 1000), request)),
    };
    ledger.commit(&entry).unwrap();
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
fn every_moment_is_remembered() {
    let mut ledger = Ledger::default();
    let first = commit(&mut ledger, 1, Request::Plain(put("a", "one", Condition::Absent)));
    let refused = commit(&mut ledger, 2, Request::Plain(put("a", "two", Condition::Absent)));
    let second = commit(
        &mut ledger,
        3,
        Request::Plain(put("a", "three", Condition::Version(first))),
    );
    let version = |index| ledger.record_at(&key("a"), index).map(|record| record.version);
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
    assert_eq!(ledger.executions()[&refused].outcome, failed);
    assert!(ledger.executions()[&second].is_done());
    assert_eq!(ledger.records_at(0).len(), 0);
    assert_eq!(ledger.records_at(first).len(), 1);
}

#[test]
fn what_a_session_has_seen_is_not_executed_again() {
    let mut ledger = Ledger::default();
    let session = commit(&mut ledger, 0, Request::Open { idle_ms: 100 });
    let command = |value| put("a", value, Condition::Any);
    let executed = |ledger: &Ledger, index| ledger.executions().contains_key(&index);
    let first = commit(&mut ledger, 1, in_session(session, 2, 0, command("two")));
    let again = commit(&mut ledger, 2, in_session(session, 2, 0, command("two")));
    let earlier = commit(&mut ledger, 3, in_session(session, 1, 0, command("one")));
    assert!(executed(&ledger, first) && !executed(&ledger, again) && executed(&ledger, earlier));
    let calls = [first, again, earlier].map(|index| ledger.call(index));
    assert_eq!(calls, [Some((session, 2)), None, Some((session, 1))]);
    // What is acknowledged is over, answered or not.
    let late = commit(&mut ledger, 4, in_session(session, 3, 4, command("three")));
    assert!(!executed(&ledger, late));
    // Idle for a moment more than it may be.
    let expired = commit(&mut ledger, 105, in_session(session, 9, 4, command("nine")));
    assert!(!executed(&ledger, expired));
}

#[test]
fn appended_entries_have_the_log_s_time() {
    let mut ledger = Ledger::default();
    let append = |text: &'static str| {
        let (source, data) = ("web".to_owned(), Bytes::from_static(text.as_bytes()));
        Request::Plain(Command::Append { source, data })
    };
    let first = commit(&mut ledger, 9, append("one"));
    let second = commit(&mut ledger, 7, append("two"));
    let times: Vec<u64> = ledger.appended().values().map(|entry| entry.time.0).collect();
    assert_eq!(
        (first, second, times),
        (1, 2, vec![9_000, 9_000]),
        "logged time does not run backwards"
    );
}
