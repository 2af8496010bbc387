//! The keys of the journal and the encoding of unapplied rows.
//!
//! ```text
//! key of the journal                              value (in a frame)
//! 01 name                                         the store's metadata
//! 02 name                                         a hard state
//! 03 stream (8, big endian) position (8, b. e.)   an entry
//! ```
//!
//! An entry of the node's own stream holds rows, one after the other:
//! `table (1) | 1 put, 0 delete (1) | key length (2, little endian) | value length (4, l. e.) | key | value`.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use quorate_core::store::{StateWrite, StreamId, Table};

use crate::store::TABLES;

const OWN: u8 = 1;
const HARD: u8 = 2;
const ENTRY: u8 = 3;

const ROW_HEADER: usize = 8;

/// The tag of the journal in the checksums of its frames.
pub(super) const JOURNAL_TAG: u8 = 0xff;

/// The tag of the state's metadata.
pub(super) const OWN_TAG: u8 = 0xfe;

pub(super) fn own_key(name: &str) -> Vec<u8> {
    [&[OWN], name.as_bytes()].concat()
}

pub(super) fn hard_key(name: &[u8]) -> Vec<u8> {
    [&[HARD], name].concat()
}

pub(super) fn entry_key(stream: StreamId, position: u64) -> [u8; 17] {
    let mut key = [ENTRY; 17];
    key[1..9].copy_from_slice(&stream.0.to_be_bytes());
    key[9..].copy_from_slice(&position.to_be_bytes());
    key
}

/// The keys of a stream's entries between two positions, both included.
pub(super) struct EntryRange {
    from: [u8; 17],
    through: [u8; 17],
}

impl EntryRange {
    pub(super) fn new(stream: StreamId, from: u64, through: u64) -> Self {
        EntryRange {
            from: entry_key(stream, from),
            through: entry_key(stream, through),
        }
    }
}

impl RangeBounds<[u8]> for EntryRange {
    fn start_bound(&self) -> Bound<&[u8]> {
        Bound::Included(&self.from)
    }

    fn end_bound(&self) -> Bound<&[u8]> {
        Bound::Included(&self.through)
    }
}

/// The position in the key of an entry.
pub(super) fn entry_position(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// Appends a row to an entry of the node's own stream.
pub(super) fn encode_write(out: &mut Vec<u8>, write: &StateWrite) {
    let value = write.value.as_deref().unwrap_or_default();
    let key_bytes = u16::try_from(write.key.len()).expect("the contract bounds keys");
    let value_bytes = u32::try_from(value.len()).expect("a value is shorter than 4 GiB");
    out.extend_from_slice(&[write.table as u8, u8::from(write.value.is_some())]);
    out.extend_from_slice(&key_bytes.to_le_bytes());
    out.extend_from_slice(&value_bytes.to_le_bytes());
    out.extend_from_slice(&write.key);
    out.extend_from_slice(value);
}

/// The rows of an entry, as slices of it; `None` if it is malformed.
pub(super) fn decode_writes(mut entry: Bytes) -> Option<Vec<StateWrite>> {
    let mut writes = Vec::new();
    while !entry.is_empty() {
        if entry.len() < ROW_HEADER {
            return None;
        }
        let header = entry.split_to(ROW_HEADER);
        let table = table_of(header[0])?;
        let key_bytes = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let value_bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if entry.len() < key_bytes.checked_add(value_bytes)? {
            return None;
        }
        let key = entry.split_to(key_bytes);
        let value = entry.split_to(value_bytes);
        let value = match header[1] {
            0 if value.is_empty() => None,
            1 => Some(value),
            _ => return None,
        };
        writes.push(StateWrite { table, key, value });
    }
    Some(writes)
}

fn table_of(tag: u8) -> Option<Table> {
    TABLES.into_iter().find(|table| *table as u8 == tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(writes: &[StateWrite]) -> Vec<u8> {
        let mut out = Vec::new();
        for write in writes {
            encode_write(&mut out, write);
        }
        out
    }

    #[test]
    fn golden_bytes() {
        let put = StateWrite {
            table: Table::Records,
            key: Bytes::from_static(b"key"),
            value: Some(Bytes::from_static(b"v")),
        };
        let delete = StateWrite {
            table: Table::TokenIndex,
            key: Bytes::from_static(b"k"),
            value: None,
        };
        assert_eq!(
            encode(&[put, delete]),
            [
                1, 1, 3, 0, 1, 0, 0, 0, b'k', b'e', b'y', b'v', 2, 0, 1, 0, 0, 0, 0, 0, b'k'
            ]
        );
        assert_eq!(own_key("format"), b"\x01format");
        assert_eq!(hard_key(b"vote"), b"\x02vote");
        assert_eq!(
            entry_key(StreamId(0x0102), 0x0304),
            [3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]
        );
        assert_eq!(TABLES.map(|table| table as u8), [0, 1, 2, 3]);
    }

    fn any_write() -> impl Strategy<Value = StateWrite> {
        let key = prop::collection::vec(any::<u8>(), 1..50);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..100));
        (prop::sample::select(&TABLES[..]), key, value).prop_map(|(table, key, value)| StateWrite {
            table,
            key: key.into(),
            value: value.map(Bytes::from),
        })
    }

    proptest! {
        #[test]
        fn rows_decode_to_what_was_encoded(writes in prop::collection::vec(any_write(), 0..20)) {
            prop_assert_eq!(decode_writes(encode(&writes).into()), Some(writes));
        }

        #[test]
        fn truncated_rows_are_rejected_or_fewer(
            writes in prop::collection::vec(any_write(), 1..5),
            at: prop::sample::Index,
        ) {
            let mut entry = encode(&writes);
            entry.truncate(at.index(entry.len()));
            if let Some(decoded) = decode_writes(entry.into()) {
                prop_assert!(decoded.len() < writes.len());
            }
        }

        #[test]
        fn garbage_never_panics(entry in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_writes(entry.into());
        }

        #[test]
        fn entries_sort_by_stream_and_position(a: (u64, u64), b: (u64, u64)) {
            let key = |(stream, position)| entry_key(StreamId(stream), position);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(entry_position(&key(a)), Some(a.1));
        }
    }
}
