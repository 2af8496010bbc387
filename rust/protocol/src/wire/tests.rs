use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::{Instant, WallTime};
use quorate_raft as raft;
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::message::Body;
use quorate_raft::types::{GroupId, LogIndex, LogPosition, Term};
use quorate_ring::{HashKind, RingSettings};
use quorate_versions::{Dot, KeyState, WriteId};

use super::*;
use crate::api::Request;
use crate::control_command::{Change, Command};
use crate::message::{Header, Message, Part, PartBody};
use crate::role::RoleId;
use crate::telemetry::TraceContext;
use crate::topology::{Member, Topology};

/// One line per message: its name and its encoding since its introduction.
const GOLDEN: &str = include_str!("golden.txt");

const NOW: Instant = Instant(7_000_000);

fn key() -> Key {
    Key::new(&b"log"[..], Some(Bytes::from_static(b"7"))).unwrap()
}

fn state() -> KeyState {
    let dot = |node, counter| Dot {
        replica: ReplicaId::new(NodeId(node), 0xabcd),
        counter,
    };
    let at = |wall| Timestamp {
        wall: WallTime(wall),
        logical: 1,
    };
    let write = |sequence| WriteId { client: 9, sequence };
    let old = KeyState::default()
        .put(
            dot(1, 4),
            Some(Bytes::from_static(b"old")),
            at(1000),
            write(1),
            None,
        )
        .unwrap();
    let other = KeyState::default()
        .put(dot(2, 1), None, at(1001), write(2), None)
        .unwrap();
    old.merge(&other)
}

/// One of each kind.
fn parts() -> Vec<Part> {
    let bodies = [
        PartBody::Store {
            key: key(),
            state: state().into(),
        },
        PartBody::Stored,
        PartBody::Fetch { key: key() },
        PartBody::Fetched {
            state: state().into(),
        },
        PartBody::Failed(Error::unavailable(2, 1)),
    ];
    let part = |(number, body): (u32, PartBody)| Part {
        request: (1 << 20) + u64::from(number),
        earlier_ms: 300 * number,
        body,
    };
    (0..).zip(bodies).map(part).collect()
}

fn write_id() -> WriteId {
    WriteId {
        client: 300,
        sequence: 2,
    }
}

/// One of each message. The match fails to compile when a message is added: give it a sample here and a line in
/// `golden.txt`.
fn samples() -> Vec<(&'static str, Message)> {
    fn name(message: &Message) -> &'static str {
        match message {
            Message::Store { .. } => "Store",
            Message::Stored => "Stored",
            Message::Fetch { .. } => "Fetch",
            Message::Fetched { .. } => "Fetched",
            Message::FetchRange { .. } => "FetchRange",
            Message::FetchedRange { .. } => "FetchedRange",
            Message::Failed(_) => "Failed",
            Message::Forward(_) => "Forward",
            Message::Forwarded(_) => "Forwarded",
            Message::Redirect { .. } => "Redirect",
            Message::Defined => "Defined",
            Message::Heal { .. } => "Heal",
            Message::Raft { .. } => "Raft",
            Message::Propose(_) => "Propose",
            Message::Parts(_) => "Parts",
        }
    }
    let get = Request::Get {
        keyspace: KeyspaceId(3),
        key: key(),
        level: Some(Level::Count(2)),
    };
    let messages = [
        Message::Store {
            key: key(),
            state: state().into(),
        },
        Message::Stored,
        Message::Fetch { key: key() },
        Message::Fetched {
            state: state().into(),
        },
        Message::FetchRange {
            start: Bytes::from_static(b"\0a"),
            end: Bytes::from_static(b"\0b"),
            limit: 500,
        },
        Message::FetchedRange {
            rows: vec![(key(), state().into())],
            more: true,
        },
        Message::Failed(Error::unavailable(2, 1)),
        Message::Forward(get),
        Message::Forwarded(Err(Error::NotFound("no keyspace k9: create it".to_owned()))),
        Message::Redirect {
            leader: Some(NodeId(2)),
        },
        Message::Defined,
        Message::Heal {
            key: key(),
            state: state().into(),
        },
        Message::Raft {
            group: GroupId(1),
            message: raft::message::Message {
                term: Term(300),
                body: Body::Append {
                    previous: LogPosition {
                        term: Term(2),
                        index: LogIndex(7),
                    },
                    commit: LogIndex(6),
                    entries: vec![Entry {
                        term: Term(300),
                        index: LogIndex(8),
                        kind: EntryKind::Command(Bytes::from_static(b"command")),
                    }],
                },
            },
        },
        Message::Propose(Change {
            id: write_id(),
            command: Command::DropKeyspace {
                name: "logs".to_owned(),
            },
        }),
        Message::Parts(parts()),
    ];
    messages
        .into_iter()
        .map(|message| (name(&message), message))
        .collect()
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        from: RoleId::Coordinator(KeyspaceId(3)),
        to: RoleId::Replica(KeyspaceId(3)),
        header: Header {
            generation: 2,
            request: 1 << 20,
            deadline: NOW + Duration::from_millis(1500),
            trace: Some(TraceContext {
                trace_id: 0xfeed,
                span_id: 0xbeef,
                sampled: true,
            }),
        },
        message,
    }
}

fn topology() -> Topology {
    let members = [1, 2].map(|id| Member {
        id: NodeId(id),
        peer_address: String::new(),
        client_address: String::new(),
        http_address: String::new(),
        rack: format!("rack {id}"),
        datacenter: "south".to_owned(),
    });
    Topology::new(ClusterId(0x0123_4567), 2, members.into(), RingSettings::default()).unwrap()
}

fn hello() -> PeerHello {
    PeerHello {
        version_min: 2,
        version_max: 2,
        features: 0,
        cluster: ClusterId(0x0123_4567),
        node: NodeId(1),
        replica: ReplicaId::new(NodeId(1), 0xabcd),
        boot: BootId(77),
        generation: 2,
        gateway: 5,
        expects: NodeId(2),
        credentials: Bytes::new(),
        knows: Some(ReplicaId::new(NodeId(2), 0xef)),
        layout: Layout::of(&topology()),
    }
}

fn welcome() -> PeerWelcome {
    PeerWelcome {
        version: 2,
        features: 0,
        cluster: ClusterId(0x0123_4567),
        node: NodeId(2),
        replica: ReplicaId::new(NodeId(2), 0xef),
        boot: BootId(78),
        generation: 2,
        gateway: 6,
        session: 99,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelope.encode(NOW, &mut bytes);
    bytes
}

#[test]
fn messages_keep_their_encoding() {
    let mut lines: Vec<String> = samples()
        .into_iter()
        .map(|(name, message)| format!("{name} {}", hex(&encoded(&envelope(message)))))
        .collect();
    lines.push(format!("hello {}", hex(&hello().encode())));
    lines.push(format!(
        "welcome {}",
        hex(&PeerAnswer::Welcome(welcome()).encode())
    ));
    let refused = PeerAnswer::Refused(Error::Refused("another cluster".to_owned()));
    lines.push(format!("refused {}", hex(&refused.encode())));
    let disowned = PeerAnswer::Disowned("another directory".to_owned());
    lines.push(format!("disowned {}", hex(&disowned.encode())));
    let golden: Vec<&str> = GOLDEN.lines().collect();
    assert_eq!(lines, golden, "\nexpected file:\n{}\n", lines.join("\n"));
}

#[test]
fn envelopes_are_decoded() {
    for (name, message) in samples() {
        let sent = envelope(message);
        let bytes = encoded(&sent);
        assert_eq!(Envelope::decode(NOW, &bytes).as_ref(), Ok(&sent), "{name}");
        for cut in 0..bytes.len() {
            assert!(
                Envelope::decode(NOW, &bytes[..cut]).is_err(),
                "{name} cut to {cut}"
            );
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(
            Envelope::decode(NOW, &longer),
            Err(WireError::Trailing { extra: 1, .. })
        ));
    }
}

#[test]
fn a_deadline_shrinks_by_the_elapsed_time_and_never_grows() {
    let sent = envelope(Message::Stored);
    let mut bytes = encoded(&sent);
    let later = NOW + Duration::from_micros(400_100);
    stamp_deadline(&mut bytes, later, sent.header.deadline);
    let elsewhere = Instant(1);
    let received = Envelope::decode(elsewhere, &bytes).unwrap();
    assert_eq!(
        received.header.deadline.since(elsewhere),
        Duration::from_millis(1099)
    );

    stamp_deadline(
        &mut bytes,
        sent.header.deadline + Duration::from_secs(1),
        sent.header.deadline,
    );
    assert_eq!(
        Envelope::decode(elsewhere, &bytes).unwrap().header.deadline,
        elsewhere
    );

    stamp_deadline(&mut bytes, NOW, Instant::NEVER);
    assert_eq!(
        Envelope::decode(elsewhere, &bytes).unwrap().header.deadline,
        Instant::NEVER
    );

    stamp_deadline(&mut bytes, NOW, Instant(u64::MAX - 1));
    assert!(Envelope::decode(elsewhere, &bytes).unwrap().header.deadline < Instant::NEVER);
}

#[test]
fn hellos_are_decoded_and_newer_fields_are_ignored() {
    let bytes = hello().encode();
    let (prefix, body) = bytes.split_first_chunk::<HELLO_PREFIX>().unwrap();
    assert_eq!(hello_body_length(prefix), Ok(body.len()));
    assert_eq!(PeerHello::decode(body), Ok(hello()));
    let mut newer = body.to_vec();
    newer.extend_from_slice(b"appended");
    assert_eq!(PeerHello::decode(&newer), Ok(hello()));
    for cut in 0..body.len() {
        assert!(PeerHello::decode(&body[..cut]).is_err());
    }
}

#[test]
fn an_invalid_prefix_is_rejected() {
    assert!(hello_body_length(b"GET / ").is_err());
    assert!(hello_body_length(&[b'Q', b'R', b'T', b'p', 0xff, 0xff]).is_err());
    assert_eq!(hello_body_length(&[b'Q', b'R', b'T', b'p', 0, 16]), Ok(4096));
}

#[test]
fn a_rejection_always_fits() {
    let bytes = PeerAnswer::Refused(Error::Refused("x".repeat(100_000))).encode();
    assert!(bytes.len() < MAX_HELLO);
    assert!(matches!(
        PeerAnswer::decode(&bytes[HELLO_PREFIX..]),
        Ok(PeerAnswer::Refused(_))
    ));
}

#[test]
fn unknown_nodes_are_rejected() {
    let rejection = |change: fn(&mut PeerHello)| {
        let mut hello = hello();
        change(&mut hello);
        match hello.negotiate(ClusterId(0x0123_4567), NodeId(2)) {
            Err(Error::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hello().negotiate(ClusterId(0x0123_4567), NodeId(2)), Ok((2, 0)));
    assert!(rejection(|hello| hello.cluster = ClusterId(5)).contains("cluster"));
    assert!(rejection(|hello| hello.expects = NodeId(3)).contains("dialled n3 but reached n2"));
    assert!(rejection(|hello| hello.node = NodeId(2)).contains("its own id"));
    assert!(rejection(|hello| hello.replica = ReplicaId::new(NodeId(4), 1)).contains("n4#"));
    assert!(rejection(|hello| hello.version_min = 9).contains("upgrade"));
    assert!(rejection(|hello| hello.version_max = 0).contains("upgrade"));
}

#[test]
fn a_node_with_another_layout_is_rejected_with_the_setting() {
    let rejection = |change: fn(&mut Topology), generation| {
        let mut ours = topology();
        change(&mut ours);
        match hello().agree(NodeId(2), generation, &Layout::of(&ours)) {
            Err(Error::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(hello().agree(NodeId(2), 2, &Layout::of(&topology())), Ok(()));
    let reason = rejection(|ours| ours.ring.hash = HashKind::Md5, 2);
    assert!(
        reason.contains("n1 was started with hash=murmur3 but n2 with hash=md5"),
        "{reason}"
    );
    assert!(rejection(|ours| drop(ours.members.pop()), 2).contains("same members"));
    assert!(rejection(|_| {}, 3).contains("generation=2 but n2 with generation=3"));
}

#[test]
fn a_node_with_another_data_directory_than_before_is_rejected() {
    let mut hello = hello();
    assert_eq!(hello.recognise(ReplicaId::new(NodeId(2), 0xef)), Ok(()));
    let Err(Error::Refused(reason)) = hello.recognise(ReplicaId::new(NodeId(2), 0xee)) else {
        panic!("recognised")
    };
    assert!(
        reason.contains("n2#0000000000ef") && reason.contains("n2#0000000000ee"),
        "{reason}"
    );
    hello.knows = None;
    assert_eq!(hello.recognise(ReplicaId::new(NodeId(2), 0xee)), Ok(()));
}

#[test]
fn the_newest_common_version_is_negotiated() {
    let mut hello = hello();
    hello.version_max = 9;
    hello.features = u64::MAX;
    assert_eq!(
        hello.negotiate(ClusterId(0x0123_4567), NodeId(2)),
        Ok((PEER_VERSION_MAX, 0))
    );
}

#[test]
fn the_dialler_checks_the_responding_node() {
    let wrong = |change: fn(&mut PeerWelcome)| {
        let mut welcome = welcome();
        change(&mut welcome);
        welcome.check(&hello()).is_err()
    };
    assert_eq!(welcome().check(&hello()), Ok(()));
    assert!(wrong(|welcome| welcome.node = NodeId(3)));
    assert!(wrong(|welcome| welcome.cluster = ClusterId(4)));
    assert!(wrong(|welcome| welcome.replica = ReplicaId::new(NodeId(3), 4)));
    assert!(wrong(|welcome| welcome.version = PEER_VERSION_MAX + 1));
    assert!(wrong(|welcome| welcome.session = 0));
}
