//! Servers with a damaged disk, and servers during recovery.

use bytes::Bytes;
use quorate_core::bugs::Bugs;
use quorate_core::contract::rng_from_seed;
use quorate_core::ids::NodeId;
use quorate_core::store::Query;
use quorate_core::time::WallTime;

use super::*;
use crate::configuration::Configuration;
use crate::entry::{Entry, EntryKind};
use crate::format;
use crate::machine::StateMachine;
use crate::message::{Body, Message};
use crate::sessions::{Request, Sessions, logged};
use crate::settings::Settings;
use crate::snapshot::{LogStart, SnapshotMeta, SnapshotRef};
use crate::types::{GroupId, HardState, LogIndex, Term};

/// A stateless state machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Nothing;

impl StateMachine for Nothing {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, format::FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, _: LogPosition, _: quorate_core::time::WallTime, _: Bytes) -> Bytes {
        Bytes::new()
    }
}

impl Machine for Nothing {
    fn query(&self, _: &Bytes) -> Bytes {
        Bytes::new()
    }

    fn save(&self) -> Bytes {
        Bytes::new()
    }

    fn load(_: &Bytes) -> Result<Self, format::FormatError> {
        Ok(Nothing)
    }
}

const GROUP: GroupId = GroupId(1);

fn group() -> RaftGroup<Nothing> {
    RaftGroup::new(Setup {
        me: NodeId(1),
        group: GROUP,
        initial: Configuration::of_voters([NodeId(1), NodeId(2)]),
        settings: Settings::default(),
        bugs: Bugs::none(),
    })
}

fn give(group: &mut RaftGroup<Nothing>, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    group.handle(Now::default(), &mut rng_from_seed(1), event, &mut effects);
    effects
}

/// Starts with a disk whose reads return `read`.
fn start(read: impl Fn(&Query) -> Result<Vec<(u64, Bytes)>, Error>) -> RaftGroup<Nothing> {
    let mut group = group();
    let mut effects = give(&mut group, Event::Start);
    while let Some(Effect::Read(query)) = effects.first() {
        let key = |position: u64| Bytes::copy_from_slice(&position.to_be_bytes());
        let rows = |rows: Vec<(u64, Bytes)>| {
            rows.into_iter()
                .map(|(position, value)| (key(position), value))
                .collect()
        };
        let result = read(query).map(|found| Rows {
            rows: rows(found),
            more: false,
        });
        effects = give(&mut group, Event::Read { result });
    }
    group
}

fn ask(group: &mut RaftGroup<Nothing>) -> Vec<Effect> {
    let mut effects = give(
        group,
        Event::Propose(vec![Proposal {
            id: 1,
            deadline: Instant::NEVER,
            request: Request::Plain(Bytes::new()),
        }]),
    );
    effects.extend(give(
        group,
        Event::Query(ReadRequest {
            id: 2,
            deadline: Instant::NEVER,
            level: ReadLevel::Stale,
            query: Bytes::new(),
        }),
    ));
    let message = Message {
        term: Term(9),
        body: Body::PreVote {
            last: LogPosition::default(),
        },
    };
    effects.extend(give(
        group,
        Event::Message {
            from: NodeId(2),
            message,
        },
    ));
    effects
}

/// It rejects clients and sends nothing to other servers.
fn rejects_every_request(group: &mut RaftGroup<Nothing>) {
    let refused = Err(ProposeError::Rejected(Rejection::NotLeader { leader: None }));
    let unanswered = Err(QueryError::NotLeader { leader: None });
    let expected = vec![
        Effect::Proposed {
            id: 1,
            result: refused,
        },
        Effect::Queried {
            id: 2,
            result: unanswered,
        },
    ];
    assert_eq!(ask(group), expected);
}

#[test]
fn an_empty_disk_starts_a_new_server() {
    let mut group = start(|_| Ok(Vec::new()));
    assert_eq!(group.raft().map(Raft::term), Some(Term(0)));
    assert!(
        ask(&mut group)
            .iter()
            .any(|effect| matches!(effect, Effect::Send { .. }))
    );
}

#[test]
fn it_takes_no_part_before_recovery() {
    let mut group = group();
    give(&mut group, Event::Start);
    rejects_every_request(&mut group);
}

#[test]
fn a_read_error_stops_the_server() {
    let mut group = start(|query| match query {
        Query::Log { .. } => Err(Error::CorruptRecord("entry 7 fails its checksum".to_owned())),
        _ => Ok(Vec::new()),
    });
    assert_eq!(group.failure(), Some("entry 7 fails its checksum"));
    rejects_every_request(&mut group);
}

#[test]
fn an_unknown_format_stops_the_server() {
    let hard = Query::Hard {
        key: GROUP.hard_state_key(),
    };
    let later = (0, Bytes::from_static(&[9, 0, 0]));
    let mut group = start(|query| {
        Ok(if *query == hard {
            vec![later.clone()]
        } else {
            Vec::new()
        })
    });
    let why = group.failure().expect("it does not take part");
    assert!(why.contains("hard state has format version 9"), "{why}");
    rejects_every_request(&mut group);
}

/// A disk with a term, and the record of a snapshot with these chunks.
fn with_snapshot(chunks: &[&'static [u8]], checksum: u64) -> RaftGroup<Nothing> {
    let position = LogPosition {
        term: Term(1),
        index: LogIndex(5),
    };
    let log_start = LogStart {
        base: position,
        members: Configuration::default(),
        snapshot: Some(SnapshotRef {
            meta: SnapshotMeta {
                position,
                configuration: Configuration::default(),
                size: 6,
                checksum,
            },
            handle: 3,
        }),
    };
    let chunks: Vec<_> = (3..)
        .zip(chunks.iter().map(|chunk| Bytes::from_static(chunk)))
        .collect();
    start(|query| {
        Ok(match query {
            Query::Hard { key } if *key == GROUP.log_start_key() => vec![(0, format::encode(&log_start))],
            Query::Hard { .. } => vec![(0, format::encode(&HardState::default()))],
            Query::Log { stream, from, .. } if *stream == GROUP.snapshot_stream() => chunks
                .iter()
                .filter(|(position, _)| position >= from)
                .cloned()
                .collect(),
            _ => Vec::new(),
        })
    })
}

#[test]
fn a_damaged_snapshot_stops_the_server() {
    let mut short = with_snapshot(&[b"abc"], 0);
    assert_eq!(
        short.failure(),
        Some("malformed snapshot: 5@t1 is shorter than its record says")
    );
    rejects_every_request(&mut short);
    let wrong = with_snapshot(&[b"abc", b"def"], 0);
    assert_eq!(
        wrong.failure(),
        Some("malformed snapshot: 5@t1 is not what was written")
    );
    let whole = with_snapshot(&[b"abc", b"def", b"of another one"], checksum(b"abcdef"));
    let why = whole.failure().expect("the sum is right, but it is no snapshot");
    assert!(why.starts_with("snapshot has format version"), "{why}");
}

/// A faulty leader, or one of another version, had this committed: no server can apply it, and none may
/// continue without it.
#[test]
fn an_undecodable_committed_command_stops_the_group_but_not_the_node() {
    let mut group = start(|_| Ok(Vec::new()));
    let from = NodeId(2);
    let term = Term(1);
    let command = |index, bytes| Entry {
        term,
        index: LogIndex(index),
        kind: EntryKind::Command(bytes),
    };
    let entries = vec![
        command(1, logged(WallTime(0), Request::Plain(Bytes::new()))),
        command(2, Bytes::from_static(b"\x09not a request")),
    ];
    let append = Body::Append {
        previous: LogPosition::default(),
        commit: LogIndex(1),
        entries,
    };
    let receive = |group: &mut _, body| {
        let message = Message { term, body };
        give(group, Event::Message { from, message })
    };
    receive(&mut group, append);
    assert_eq!(group.state().map(Sessions::applied), Some(LogIndex(1)));
    let read = ReadRequest {
        id: 7,
        deadline: Instant::NEVER,
        level: ReadLevel::Linearizable,
        query: Bytes::new(),
    };
    give(&mut group, Event::Query(read));
    let heartbeat = Body::Heartbeat {
        commit: LogIndex(2),
        round: 0,
    };
    let effects = receive(&mut group, heartbeat.clone());
    let why = group.failure().expect("it has stopped").to_owned();
    assert!(
        why.contains("entry 2@t1 is committed but cannot be read (malformed logged request"),
        "{why}"
    );
    let unanswered = Effect::Queried {
        id: 7,
        result: Err(QueryError::NotLeader { leader: None }),
    };
    assert!(
        effects.contains(&unanswered),
        "pending requests are rejected: {effects:?}"
    );
    rejects_every_request(&mut group);
    assert_eq!(receive(&mut group, heartbeat), []);
}
