//! The bytes of messages never change: the servers of a group may run different versions.
//!
//! The bytes are in `tests/golden/raft_messages.txt`. `UPDATE_TRANSCRIPTS=1` adds missing kinds; existing
//! lines must not change.

use std::fmt::Write as _;
use std::path::Path;

use quorate_core::ids::NodeId;

use super::*;
use crate::configuration::Configuration;
use crate::entry::EntryKind;

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition {
        term: Term(term),
        index: LogIndex(index),
    }
}

/// A sample of each kind, in the order of the variants.
fn samples() -> Vec<(&'static str, Body)> {
    let entries = vec![
        Entry {
            term: Term(2),
            index: LogIndex(300),
            kind: EntryKind::Empty,
        },
        Entry {
            term: Term(3),
            index: LogIndex(301),
            kind: EntryKind::Command(Bytes::from_static(b"put")),
        },
    ];
    let meta = SnapshotMeta {
        position: position(300, 2),
        configuration: Configuration::of_voters([NodeId(1), NodeId(2)]),
        size: 1000,
        checksum: u64::MAX,
    };
    vec![
        (
            "pre_vote",
            Body::PreVote {
                last: position(300, 2),
            },
        ),
        ("pre_vote_answer", Body::PreVoteAnswer { granted: true }),
        (
            "vote",
            Body::Vote {
                last: position(300, 2),
            },
        ),
        ("vote_answer", Body::VoteAnswer { granted: false }),
        (
            "append",
            Body::Append {
                previous: position(299, 2),
                commit: LogIndex(298),
                entries,
            },
        ),
        (
            "accepted",
            Body::Accepted {
                through: LogIndex(301),
            },
        ),
        (
            "rejected",
            Body::Rejected {
                previous: LogIndex(299),
                conflict: position(290, 1),
            },
        ),
        (
            "heartbeat",
            Body::Heartbeat {
                commit: LogIndex(301),
                round: 7,
            },
        ),
        (
            "heartbeat_ack",
            Body::HeartbeatAck {
                round: 7,
                received: LogIndex(301),
                durable: LogIndex(300),
            },
        ),
        ("read_index", Body::ReadIndex { request: 9 }),
        (
            "read_index_answer",
            Body::ReadIndexAnswer {
                request: 9,
                index: LogIndex(301),
            },
        ),
        (
            "snapshot",
            Body::Snapshot {
                meta: Box::new(meta),
                offset: 128,
                bytes: Bytes::from_static(b"bytes"),
            },
        ),
        (
            "snapshot_received",
            Body::SnapshotReceived {
                position: position(300, 2),
                offset: 133,
            },
        ),
        ("outdated", Body::Outdated),
        ("probe", Body::Probe { probe: 300 }),
        (
            "probe_answer",
            Body::ProbeAnswer {
                probe: 300,
                index: LogIndex(301),
            },
        ),
    ]
}

/// The index of a kind; a new kind does not compile until it is added here.
fn place(body: &Body) -> usize {
    match body {
        Body::PreVote { .. } => 0,
        Body::PreVoteAnswer { .. } => 1,
        Body::Vote { .. } => 2,
        Body::VoteAnswer { .. } => 3,
        Body::Append { .. } => 4,
        Body::Accepted { .. } => 5,
        Body::Rejected { .. } => 6,
        Body::Heartbeat { .. } => 7,
        Body::HeartbeatAck { .. } => 8,
        Body::ReadIndex { .. } => 9,
        Body::ReadIndexAnswer { .. } => 10,
        Body::Snapshot { .. } => 11,
        Body::SnapshotReceived { .. } => 12,
        Body::Outdated => 13,
        Body::Probe { .. } => 14,
        Body::ProbeAnswer { .. } => 15,
    }
}

#[test]
fn every_kind_has_a_sample() {
    let places: Vec<usize> = samples().iter().map(|(_, body)| place(body)).collect();
    assert_eq!(places, (0..16).collect::<Vec<_>>());
}

#[test]
fn messages_keep_their_bytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft_messages.txt");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let mut found = String::new();
    for (name, body) in samples() {
        let message = Message { term: Term(3), body };
        let bytes = postcard::to_stdvec(&message).expect("plain data");
        assert_eq!(postcard::from_bytes::<Message>(&bytes).as_ref(), Ok(&message));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(found, "{name} {hex}").expect("a string takes everything");
    }
    if found != golden && std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1") {
        assert!(found.starts_with(&golden), "messages that exist have changed");
        std::fs::write(&path, found).expect("the file is writable");
        return;
    }
    assert_eq!(found, golden);
}
