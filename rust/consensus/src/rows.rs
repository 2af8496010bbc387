//! A group's rows in [`Table::Groups`](quorate_core::store::Table::Groups).
//!
//! All rows of a group are contiguous, so that one range is its whole state:
//!
//! ```text
//! group (4 bytes, big endian)  0                       the marker: how far the log has been applied, and the log's clock
//! group                        0  0                    a state in memory
//! group                        1  session (8 bytes)    a session: its expiry and its stored answers
//! group                        2  key (encoded)        a record
//! group                        3  log index (8 bytes)  an appended entry
//! ```

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_core::time::WallTime;
use quorate_protocol::api::{LogEntry, Record};
use quorate_raft::format;
use quorate_raft::sessions::SessionId;
use quorate_raft::types::{GroupId, LogPosition};
use serde::{Deserialize, Serialize};

const MARKER: u8 = 0;
const SESSION: u8 = 1;
const RECORD: u8 = 2;
const ENTRY: u8 = 3;
/// The size of the prefix of a row's key.
const HEAD: usize = 5;

/// The log position of a group's rows: the value of its marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marker {
    /// The last entry applied to the rows.
    pub applied: LogPosition,
    /// The latest time in the log up to there.
    pub clock: WallTime,
}

/// A stored record, under its key.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u64,
    time: WallTime,
    value: Bytes,
}

/// A stored entry, under its id.
#[derive(Serialize, Deserialize)]
struct StoredEntry {
    term: u64,
    time: WallTime,
    source: String,
    data: Bytes,
}

fn head(group: GroupId, kind: u8, room: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEAD + room);
    out.put_u32(group.0);
    out.put_u8(kind);
    out
}

/// The prefix of all rows of a group.
pub fn prefix(group: GroupId) -> Bytes {
    Bytes::copy_from_slice(&group.0.to_be_bytes())
}

/// The marker's row.
pub fn marker_key(group: GroupId) -> Bytes {
    head(group, MARKER, 0).freeze()
}

/// The row of a state in memory.
pub fn machine_key(group: GroupId) -> Bytes {
    let mut out = head(group, MARKER, 1);
    out.put_u8(0);
    out.freeze()
}

/// A session's row.
pub fn session_key(group: GroupId, session: SessionId) -> Bytes {
    let mut out = head(group, SESSION, 8);
    out.put_u64(session.0);
    out.freeze()
}

/// A record's row.
pub fn record_key(group: GroupId, key: &Key) -> Bytes {
    let encoded = key.encode();
    let mut out = head(group, RECORD, encoded.len());
    out.put_slice(&encoded);
    out.freeze()
}

/// An entry's row.
pub fn entry_key(group: GroupId, id: u64) -> Bytes {
    let mut out = head(group, ENTRY, 8);
    out.put_u64(id);
    out.freeze()
}

/// The rows that a server reads when it starts: the marker, a state in memory, and sessions.
pub fn initial_rows(group: GroupId) -> Range<Bytes> {
    marker_key(group)..head(group, RECORD, 0).freeze()
}

/// Records from `start` to `end` (exclusive); `None` is the first or last key.
pub fn records(group: GroupId, start: Option<&Key>, end: Option<&Key>) -> Range<Bytes> {
    let start = start.map_or_else(|| head(group, RECORD, 0).freeze(), |key| record_key(group, key));
    let end = end.map_or_else(|| head(group, ENTRY, 0).freeze(), |key| record_key(group, key));
    start..end
}

/// Entries with ids greater than `after`.
pub fn entries(group: GroupId, after: u64) -> Range<Bytes> {
    let start = match after.checked_add(1) {
        Some(first) => entry_key(group, first),
        None => head(group, ENTRY + 1, 0).freeze(),
    };
    start..head(group, ENTRY + 1, 0).freeze()
}

/// Encodes a record.
pub fn encode_record(version: u64, time: WallTime, value: Bytes) -> Bytes {
    format::encode(&Stored { version, time, value })
}

/// Decodes a record.
///
/// # Errors
/// [`Error::CorruptRecord`].
pub fn decode_record(bytes: &[u8]) -> Result<Record, Error> {
    let stored: Stored = format::decode("record", bytes).map_err(corrupt)?;
    Ok(Record {
        version: stored.version,
        time: stored.time,
        value: stored.value,
    })
}

/// Decodes the key of a record's row.
///
/// # Errors
/// [`Error::CorruptRecord`].
pub fn decode_record_key(row: &[u8]) -> Result<Key, Error> {
    let encoded = row.get(HEAD..).ok_or_else(|| corrupt("a row without a key"))?;
    Key::decode(encoded).map_err(corrupt)
}

/// Encodes an entry.
pub fn encode_entry(term: u64, time: WallTime, source: String, data: Bytes) -> Bytes {
    format::encode(&StoredEntry {
        term,
        time,
        source,
        data,
    })
}

/// Decodes an entry.
///
/// # Errors
/// [`Error::CorruptRecord`].
pub fn decode_entry(row: &[u8], bytes: &[u8]) -> Result<LogEntry, Error> {
    let id = number(row)?;
    let stored: StoredEntry = format::decode("appended entry", bytes).map_err(corrupt)?;
    Ok(LogEntry {
        id,
        term: stored.term,
        time: stored.time,
        source: stored.source,
        data: stored.data,
    })
}

/// A row that a server reads when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialKey {
    /// The marker.
    Marker,
    /// A state in memory.
    Machine,
    /// A session.
    Session(SessionId),
}

/// Decodes the key of such a row.
///
/// # Errors
/// [`Error::CorruptRecord`].
pub fn decode_initial_key(row: &[u8]) -> Result<InitialKey, Error> {
    match row.get(HEAD - 1..) {
        Some([MARKER]) => Ok(InitialKey::Marker),
        Some([MARKER, 0]) => Ok(InitialKey::Machine),
        _ => number(row).map(|id| InitialKey::Session(SessionId(id))),
    }
}

fn number(row: &[u8]) -> Result<u64, Error> {
    let bytes = row.get(HEAD..).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes
        .map(u64::from_be_bytes)
        .ok_or_else(|| corrupt("a row key without a number"))
}

fn corrupt(reason: impl std::fmt::Display) -> Error {
    Error::CorruptRecord(format!(
        "a group's row is malformed ({reason}): the group's other members have copies"
    ))
}

#[cfg(test)]
mod tests {
    use quorate_raft::types::{LogIndex, Term};

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn hex(bytes: &Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes on disk must stay readable.
    #[test]
    fn the_bytes_of_rows_do_not_change() {
        let key = Key::try_from("k").unwrap();
        assert_eq!(hex(&marker_key(GROUP)), "0000000700");
        assert_eq!(
            hex(&session_key(GROUP, SessionId(9))),
            "00000007010000000000000009"
        );
        assert_eq!(hex(&record_key(GROUP, &key)), "00000007026b000000");
        assert_eq!(hex(&entry_key(GROUP, 9)), "00000007030000000000000009");
        let record = encode_record(300, WallTime(5), Bytes::from_static(b"v"));
        assert_eq!(hex(&record), "02ac02050176");
        let entry = encode_entry(2, WallTime(5), "web".to_owned(), Bytes::from_static(b"v"));
        assert_eq!(hex(&entry), "02020503776562".to_owned() + "0176");
        let marker = Marker {
            applied: LogPosition {
                term: Term(2),
                index: LogIndex(300),
            },
            clock: WallTime(5),
        };
        assert_eq!(hex(&format::encode(&marker)), "0202ac0205");
    }

    #[test]
    fn a_group_s_rows_are_contiguous_and_ordered() {
        let key = |name| record_key(GROUP, &Key::try_from(name).unwrap());
        let rows = [
            marker_key(GROUP),
            session_key(GROUP, SessionId(1)),
            session_key(GROUP, SessionId(256)),
            key("a"),
            key("ab"),
            key("b"),
            entry_key(GROUP, 1),
            entry_key(GROUP, 256),
            marker_key(GroupId(8)),
        ];
        assert!(rows.is_sorted());
        assert!(rows[..8].iter().all(|row| row.starts_with(&prefix(GROUP))));
        let within = |range: Range<Bytes>| rows.iter().filter(|row| range.contains(*row)).count();
        assert_eq!(within(initial_rows(GROUP)), 3);
        assert_eq!(within(records(GROUP, None, None)), 3);
        let (a, b) = (Key::try_from("a").unwrap(), Key::try_from("b").unwrap());
        assert_eq!(within(records(GROUP, Some(&a), Some(&b))), 2);
        assert_eq!(within(entries(GROUP, 0)), 2);
        assert_eq!(within(entries(GROUP, 1)), 1);
        assert_eq!(within(entries(GROUP, u64::MAX)), 0);
    }

    #[test]
    fn rows_round_trip() {
        let key = Key::new("part", Some(Bytes::from_static(b"sort"))).unwrap();
        assert_eq!(decode_record_key(&record_key(GROUP, &key)), Ok(key));
        let record = decode_record(&encode_record(3, WallTime(5), Bytes::from_static(b"v"))).unwrap();
        assert_eq!(
            (record.version, record.time, &record.value[..]),
            (3, WallTime(5), &b"v"[..])
        );
        let bytes = encode_entry(2, WallTime(5), "web".to_owned(), Bytes::from_static(b"line"));
        let entry = decode_entry(&entry_key(GROUP, 9), &bytes).unwrap();
        assert_eq!((entry.id, entry.term, &*entry.source), (9, 2, "web"));
        let session = session_key(GROUP, SessionId(4));
        assert_eq!(
            decode_initial_key(&session),
            Ok(InitialKey::Session(SessionId(4)))
        );
        assert_eq!(decode_initial_key(&marker_key(GROUP)), Ok(InitialKey::Marker));
        assert_eq!(decode_initial_key(&machine_key(GROUP)), Ok(InitialKey::Machine));
        assert!(matches!(decode_record(b"\x01"), Err(Error::CorruptRecord(_))));
        assert!(matches!(
            decode_entry(b"\x01", &bytes),
            Err(Error::CorruptRecord(_))
        ));
    }
}
