use quorate_core::hlc::Timestamp;
use quorate_core::ids::{KeyspaceId, ReplicaId};
use quorate_core::level::Level;
use quorate_core::time::WallTime;
use quorate_raft::configuration::Configuration;
use quorate_raft::entry::{Entry as RaftEntry, EntryKind};
use quorate_raft::message::{Body, Message as RaftMessage};
use quorate_raft::snapshot::SnapshotMeta;
use quorate_raft::types::{LogIndex, LogPosition, Term};
use quorate_versions::{Context, Dot, VersionVector, WriteId};

use super::*;
use crate::api::request_samples::{encoded_len, every_kind, large};
use crate::api::{Entry, LogEntry, Record, View, Written};
use crate::control_command::Command;

/// The parts of fixed size of a message on the wire.
const FIXED: usize = 128;

fn key() -> Key {
    Key::of(large(1_000)).expect("a key")
}

fn dot(number: u16) -> Dot {
    Dot {
        replica: ReplicaId::new(NodeId(number), u64::from(number) << 30),
        counter: 1 << 40,
    }
}

fn vector() -> VersionVector {
    (1..300).map(dot).collect()
}

fn state() -> Arc<KeyState> {
    let write_id = WriteId {
        client: u64::MAX,
        sequence: u64::MAX,
    };
    let mut state = KeyState::default();
    for number in 1..20 {
        let value = Some(large(50_000));
        let none = VersionVector::new();
        let next = state.put(dot(number), value, Timestamp::default(), write_id, Some(&none));
        state = next.expect("a new dot");
    }
    Arc::new(state)
}

fn raft(body: Body) -> Message {
    let message = RaftMessage {
        term: Term(u64::MAX),
        body,
    };
    let group = GroupId(2);
    Message::Raft { group, message }
}

fn responses() -> Vec<Response> {
    let record = Record {
        version: u64::MAX,
        time: WallTime(u64::MAX),
        value: large(10_000),
    };
    let view = View {
        node: NodeId(1),
        leader: None,
        applied: u64::MAX,
        staleness_micros: None,
    };
    let entry = Entry {
        versions: Vec::new(),
        context: Context::new(KeyspaceId(1), &key(), vector()),
        answered: (1..100).map(NodeId).collect(),
        coordinator: NodeId(1),
        level: Level::One,
    };
    let written = Written {
        dot: dot(1),
        context: Context::new(KeyspaceId(1), &key(), vector()),
        timestamp: Timestamp::default(),
        acked: (1..100).map(NodeId).collect(),
        coordinator: NodeId(1),
        level: Level::One,
    };
    let log_entry = LogEntry {
        id: u64::MAX,
        term: u64::MAX,
        time: WallTime(u64::MAX),
        source: "s".repeat(200),
        data: large(10),
    };
    vec![
        Response::Entry(entry.clone()),
        Response::WrittenMany(vec![Ok(written), Err(Error::NotFound("w".repeat(1_000)))]),
        Response::Entries(vec![Ok(entry.clone()), Err(Error::NotFound("w".repeat(1_000)))]),
        Response::Page(crate::api::Page {
            entries: vec![(key(), entry); 100],
            next: Some(key()),
        }),
        Response::Metrics("m".repeat(100_000)),
        Response::Records {
            records: vec![Some(record.clone()); 100],
            view,
        },
        Response::RecordPage {
            entries: vec![(key(), record); 100],
            next: Some(key()),
            view,
        },
        Response::LogPage {
            entries: vec![log_entry; 1_000],
            next: None,
            view,
        },
        Response::Done,
    ]
}

/// Each kind at least once; a new one does not compile before it has a sample.
fn every_message() -> Vec<Message> {
    let entry = |number: u64| RaftEntry {
        term: Term(1),
        index: LogIndex(number),
        kind: EntryKind::Command(large(500)),
    };
    let position = LogPosition {
        term: Term(u64::MAX),
        index: LogIndex(u64::MAX),
    };
    let meta = SnapshotMeta {
        position,
        configuration: Configuration::of_voters((1..100).map(NodeId)),
        size: u64::MAX,
        checksum: u64::MAX,
    };
    let change = Change {
        id: WriteId::default(),
        command: Command::DropKeyspace { name: "n".repeat(64) },
    };
    let bodies = [
        PartBody::Store {
            key: key(),
            state: state(),
        },
        PartBody::Stored,
        PartBody::Fetch { key: key() },
        PartBody::Fetched { state: state() },
        PartBody::Failed(Error::NotFound("w".repeat(1_000))),
    ];
    let part = |body: &PartBody| Part {
        request: u64::MAX,
        earlier_ms: u32::MAX,
        body: body.clone(),
    };
    let parts = bodies.iter().cycle().map(part).take(500).collect();
    let mut messages = vec![
        Message::Store {
            key: key(),
            state: state(),
        },
        Message::Stored,
        Message::Fetch { key: key() },
        Message::Fetched { state: state() },
        Message::FetchRange {
            start: large(1_000),
            end: large(1_000),
            limit: 1,
        },
        Message::FetchedRange {
            rows: vec![(key(), state()); 3],
            more: true,
        },
        Message::Failed(Error::NotFound("w".repeat(1_000))),
        Message::Forwarded(Err(Error::NotFound("w".repeat(1_000)))),
        Message::Redirect { leader: None },
        Message::Defined,
        Message::Heal {
            key: key(),
            state: state(),
        },
        raft(Body::Append {
            previous: position,
            commit: LogIndex(1),
            entries: (1..500).map(entry).collect(),
        }),
        raft(Body::Snapshot {
            meta: Box::new(meta),
            offset: u64::MAX,
            bytes: large(64 << 10),
        }),
        raft(Body::Outdated),
        Message::Propose(change),
        Message::Parts(parts),
    ];
    messages.extend(every_kind().into_iter().map(Message::Forward));
    messages.extend(
        responses()
            .into_iter()
            .map(|response| Message::Forwarded(Ok(response))),
    );
    for message in &messages {
        match message {
            Message::Store { .. }
            | Message::Stored
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::FetchRange { .. }
            | Message::FetchedRange { .. }
            | Message::Failed(_)
            | Message::Forward(_)
            | Message::Forwarded(_)
            | Message::Redirect { .. }
            | Message::Defined
            | Message::Heal { .. }
            | Message::Raft { .. }
            | Message::Propose(_)
            | Message::Parts(_) => {}
        }
    }
    messages
}

/// The queues to a peer are bounded by the reported sizes of messages.
#[test]
fn no_message_exceeds_its_reported_size() {
    for message in every_message() {
        let (says, has) = (message.bytes() + FIXED, encoded_len(&message));
        let name = format!("{message:?}");
        assert!(
            has <= says,
            "{}: {has} bytes, says {says}",
            &name[..name.len().min(60)]
        );
    }
}

/// A part has the header of its message, except for its deadline, which is never later.
#[test]
fn parts_keep_their_headers_and_messages() {
    let header = |request: u64, deadline: u64| Header {
        generation: 3,
        request,
        deadline: Instant(deadline),
        trace: None,
    };
    let stored = |request, deadline| (header(request, deadline), PartBody::Stored);
    let messages = vec![stored(7, 9_000_500), stored(8, 9_500_000), stored(9, 9_000_000)];
    let (envelope, packed) = Part::pack(messages).expect("there are some");
    assert_eq!(envelope, header(0, 9_500_000));
    let Message::Parts(parts) = packed else {
        panic!("{packed:?}");
    };
    let unpacked: Vec<_> = parts.into_iter().map(|part| part.unpack(&envelope)).collect();
    let expected = [header(7, 9_000_000), header(8, 9_500_000), header(9, 9_000_000)];
    assert_eq!(unpacked, expected.map(|header| (header, Message::Stored)));
    assert_eq!(Part::pack(Vec::new()), None);
}

/// A part converts back into its message, and parts do not nest, so that decoding needs a bounded stack.
#[test]
fn a_part_converts_back_into_its_message() {
    for message in every_message() {
        let mut whole = None;
        match PartBody::of(message.clone(), |same| whole = Some(same)) {
            Some(body) => {
                assert_eq!(body.bytes(), message.bytes());
                assert_eq!((Message::from(body), whole), (message, None));
            }
            None => assert_eq!(whole, Some(message)),
        }
    }
}

/// The control lane has no credit, and timeouts of peers depend on it: its messages must be of bounded size.
#[test]
fn messages_of_the_control_lane_are_small() {
    for message in every_message() {
        if message.lane(0) == Lane::Control {
            assert_eq!(message.bytes(), 0, "{message:?}");
        }
    }
    assert_eq!(Message::Stored.lane(BULK_THRESHOLD + 1), Lane::Bulk);
}
