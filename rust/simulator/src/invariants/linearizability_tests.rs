use bytes::Bytes;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::level::Level;
use quorate_core::time::{Instant, WallTime};
use quorate_protocol::api::{Committed, ReadLevel, View};

use super::*;
use crate::history::Action as OperationRef;

const KEYSPACE: KeyspaceId = KeyspaceId(3);
const GROUP: GroupId = GroupId(2);

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn operation(
    request: Request,
    (invoked, completed): (u64, u64),
    result: Result<Response, Error>,
) -> Operation {
    Operation {
        client: 1,
        keyspace: KEYSPACE,
        action: OperationRef::Shard(request),
        level: Level::Quorum,
        invoked: Instant(invoked),
        completed: Some((Instant(completed), result)),
    }
}

/// A batch that puts its number to all keys, with a condition.
fn batch(names: &[&str], condition: shard_command::Condition, number: u64) -> Request {
    let write = |name: &&str| Write {
        key: key(name),
        value: Some(Bytes::from(number.to_string())),
        condition,
    };
    Request::Propose {
        keyspace: KEYSPACE,
        group: GROUP,
        command: Command::Write(names.iter().map(write).collect()),
        session: None,
    }
}

fn done(index: u64) -> Result<Response, Error> {
    Ok(Response::Committed(Committed {
        index,
        term: 1,
        leader: NodeId(1),
    }))
}

const VIEW: View = View {
    node: NodeId(1),
    leader: None,
    applied: 9,
    staleness_micros: Some(0),
};

fn record(version: u64) -> Record {
    Record {
        version,
        time: WallTime(0),
        value: Bytes::from(version.to_string()),
    }
}

fn read(name: &str, level: ReadLevel) -> Request {
    Request::Read {
        keyspace: KEYSPACE,
        group: GROUP,
        keys: vec![key(name)],
        level,
    }
}

fn found(version: Option<u64>) -> Result<Response, Error> {
    Ok(Response::Records {
        records: vec![version.map(record)],
        view: VIEW,
    })
}

#[test]
fn an_old_value_is_detected_except_in_a_stale_read() {
    let any = shard_command::Condition::Any;
    let history = |level| {
        [
            operation(batch(&["a", "b"], any, 1), (0, 10), done(1)),
            operation(batch(&["b"], any, 2), (20, 30), done(2)),
            operation(read("b", level), (40, 50), found(Some(1))),
        ]
    };
    assert_eq!(check_history(&history(ReadLevel::Stale)), Ok(()));
    let result = check_history(&history(ReadLevel::Linearizable));
    assert!(
        result.is_err_and(|what| what.contains("\"b")),
        "the violation is on b"
    );
}

#[test]
fn keys_missing_in_a_range_were_absent() {
    let range = |limit| Request::ReadRange {
        keyspace: KEYSPACE,
        group: GROUP,
        start: None,
        end: Some(key("c")),
        after_start: false,
        limit,
        level: ReadLevel::Linearizable,
    };
    let page = |next: Option<&str>| {
        Ok(Response::RecordPage {
            entries: vec![(key("a"), record(1))],
            next: next.map(key),
            view: VIEW,
        })
    };
    let history = |answer| {
        [
            operation(
                batch(&["a", "b", "c"], shard_command::Condition::Any, 1),
                (0, 10),
                done(1),
            ),
            operation(range(1), (20, 30), answer),
        ]
    };
    assert_eq!(
        check_history(&history(page(Some("a")))),
        Ok(()),
        "b is on the next page"
    );
    assert!(
        check_history(&history(page(None))).is_err(),
        "b was written, but there is no next page"
    );
}

#[test]
fn a_failed_condition_concerns_only_its_key() {
    let absent = shard_command::Condition::Absent;
    let refused = |name: &str| {
        Err(Error::ConditionFailed {
            key: key(name).to_string(),
            current: Some(1),
        })
    };
    let history = |refused| {
        [
            operation(batch(&["a"], absent, 1), (0, 10), done(1)),
            operation(batch(&["b", "a"], absent, 2), (20, 30), refused),
            operation(read("b", ReadLevel::Linearizable), (40, 50), found(None)),
        ]
    };
    assert_eq!(check_history(&history(refused("a"))), Ok(()));
    assert!(check_history(&history(refused("b"))).is_err(), "b was absent");
}
