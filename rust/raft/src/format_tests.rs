//! The bytes of stored values never change.

use bytes::Bytes;
use quorate_core::ids::NodeId;
use serde::de::DeserializeOwned;

use super::*;
use crate::configuration::Configuration;
use crate::entry::{Entry, EntryKind};
use crate::snapshot::{LogStart, SnapshotMeta, SnapshotRef};
use crate::types::{HardState, LogIndex, LogPosition, Term};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(kind: EntryKind) -> Entry {
    Entry {
        term: Term(3),
        index: LogIndex(300),
        kind,
    }
}

fn joint() -> Configuration {
    Configuration {
        voters: [NodeId(1), NodeId(2)].into(),
        outgoing: [NodeId(1), NodeId(3)].into(),
        learners: [NodeId(4)].into(),
    }
}

/// Encodes `value`, compares with the golden bytes, and decodes it.
fn golden<T>(value: &T, bytes: &str)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let encoded = encode(value);
    assert_eq!(hex(&encoded), bytes, "{value:?}");
    assert_eq!(&decode::<T>("golden value", &encoded).unwrap(), value);
}

#[test]
fn entries_keep_their_bytes() {
    golden(&entry(EntryKind::Empty), "0203ac0200");
    golden(
        &entry(EntryKind::Command(Bytes::from_static(b"put"))),
        "0203ac020103707574",
    );
    golden(
        &entry(EntryKind::Configuration(joint())),
        "0203ac02020201020201030104",
    );
}

#[test]
fn hard_states_keep_their_bytes() {
    golden(&HardState::default(), "020000");
    let voted = HardState {
        term: Term(7),
        vote: Some(NodeId(2)),
    };
    golden(&voted, "02070102");
}

#[test]
fn snapshot_records_keep_their_bytes() {
    let meta = SnapshotMeta {
        position: LogPosition {
            term: Term(3),
            index: LogIndex(300),
        },
        configuration: joint(),
        size: 65_536,
        checksum: 5,
    };
    let mut log_start = LogStart {
        base: LogPosition {
            term: Term(2),
            index: LogIndex(200),
        },
        members: joint(),
        snapshot: Some(SnapshotRef { meta, handle: 9 }),
    };
    golden(
        &log_start,
        "0202c80102010202010301040103ac0202010202010301048080040509",
    );
    log_start.snapshot = None;
    golden(&log_start, "0202c801020102020103010400");
}

#[test]
fn unknown_formats_are_rejected_by_name() {
    let version = FormatError::Version {
        what: "log entry",
        found: 1,
    };
    assert_eq!(decode::<HardState>("log entry", &[1, 0, 0]), Err(version));
    for bytes in [&[][..], &[2], &[2, 0, 0, 0], &[2, 0, 9]] {
        let error = decode::<HardState>("hard state", bytes).unwrap_err();
        assert!(error.to_string().starts_with("malformed hard state: "), "{error}");
    }
}
