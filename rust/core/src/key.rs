//! Keys, and their encoding in stores.
//!
//! A key is a **partition** (it alone decides which nodes store the record) and an optional **sort** part, which
//! orders the records inside a partition. Keys compare by partition, then "no sort part" before any, then by sort
//! part, bytes as unsigned numbers.
//!
//! A store compares plain bytes, so keys have an encoding whose byte order is the keys' own order and which
//! is self-terminating, so that another part can follow. Only the zero byte needs care, since the end of a
//! part must sort before every byte that could follow. The usual escape doubles each zero byte, and 1,024 of
//! them would not fit into the 1,982 bytes that LMDB allows. So a *run* of zeros is encoded as `00` and one
//! byte, which gives the length of the run and what comes after it:
//!
//! ```text
//! 00..=7f   the part ends after this many zeros                 more zeros sort later:   ascending
//! 80        128 zeros, and the part continues arbitrarily
//! 81..=ff   (256 - byte) zeros, then a byte that is not zero    more zeros sort earlier: descending
//! ```
//!
//! The three groups are in the right order too: of two strings that agree up to a run of zeros, one that ends
//! in it is smaller than one that continues with a non-zero byte, however many zeros either has. Every key
//! has exactly one encoding, and [`Key::decode`] rejects all other bytes. The worst key alternates zeros with
//! other bytes and grows by a half, to [`MAX_ENCODED_KEY`].

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::KeyspaceId;

/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// The maximum size of a key's partition and sort part together.
pub const MAX_KEY: usize = 1024;

/// The maximum size of an encoded key: half as much again, two ends and the mark between them.
pub const MAX_ENCODED_KEY: usize = MAX_KEY + MAX_KEY / 2 + 2 * END + 1;

/// The bytes of a part's end: `00` and a run byte.
const END: usize = 2;

/// Separates the parts.
const NO_SORT: u8 = 0;
const SORT_FOLLOWS: u8 = 1;

/// The number of zeros that the run byte [`RUN_CONTINUES`] stands for: one more than any other run byte.
const LONGEST_RUN: usize = 128;
const RUN_CONTINUES: u8 = 128;

/// Why bytes are not a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyError {
    /// A key must have a partition.
    #[error("the key is empty: give at least one byte")]
    EmptyPartition,
    /// The partition and the sort part together are longer than [`MAX_KEY`].
    #[error("the key is {size} bytes but the limit is {limit}: shorten it, or put the rest into the value")]
    TooLong {
        /// Bytes of both parts.
        size: usize,
        /// [`MAX_KEY`].
        limit: usize,
    },
    /// Stored or received bytes that do not encode a key.
    #[error("malformed encoded key {bytes}: {reason}")]
    Malformed {
        /// The bytes, in hexadecimal, cut after 64 of them.
        bytes: String,
        /// The reason.
        reason: &'static str,
    },
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Error {
        match error {
            KeyError::EmptyPartition => Error::invalid(error.to_string()),
            KeyError::TooLong { size, limit } => Error::LimitExceeded {
                what: "the key's length in bytes".to_owned(),
                size: size as u64,
                limit: limit as u64,
                remedy: "shorten it, or put the rest into the value".to_owned(),
            },
            KeyError::Malformed { .. } => Error::CorruptRecord(error.to_string()),
        }
    }
}

/// The key of a record. The partition is not empty and both parts together are at most [`MAX_KEY`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedKey")]
pub struct Key {
    partition: Bytes,
    sort: Option<Bytes>,
}

/// A received key whose size has not been checked.
#[derive(Deserialize)]
struct UncheckedKey {
    partition: Bytes,
    sort: Option<Bytes>,
}

impl TryFrom<UncheckedKey> for Key {
    type Error = KeyError;

    fn try_from(key: UncheckedKey) -> Result<Self, KeyError> {
        Key::new(key.partition, key.sort)
    }
}

impl Key {
    /// The record at `sort` in `partition`.
    ///
    /// # Errors
    /// [`KeyError::EmptyPartition`], or [`KeyError::TooLong`] above [`MAX_KEY`] bytes.
    pub fn new(partition: impl Into<Bytes>, sort: Option<Bytes>) -> Result<Self, KeyError> {
        let key = Key {
            partition: partition.into(),
            sort,
        };
        if key.partition.is_empty() {
            return Err(KeyError::EmptyPartition);
        }
        if key.size() > MAX_KEY {
            return Err(KeyError::TooLong {
                size: key.size(),
                limit: MAX_KEY,
            });
        }
        Ok(key)
    }

    /// The record of `partition` that has no sort part.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn of(partition: impl Into<Bytes>) -> Result<Self, KeyError> {
        Key::new(partition, None)
    }

    /// The part that decides which nodes store the record.
    pub fn partition(&self) -> &Bytes {
        &self.partition
    }

    /// The part that orders records within the partition.
    pub fn sort(&self) -> Option<&Bytes> {
        self.sort.as_ref()
    }

    /// The size of both parts.
    pub fn size(&self) -> usize {
        self.partition.len() + self.sort.as_ref().map_or(0, Bytes::len)
    }

    /// The encoding, which sorts as keys do; at most [`MAX_ENCODED_KEY`] bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size() + 16);
        self.encode_into(&mut out);
        out.freeze()
    }

    fn encode_into(&self, out: &mut BytesMut) {
        encode_part(&self.partition, out);
        match &self.sort {
            None => out.put_u8(NO_SORT),
            Some(sort) => {
                out.put_u8(SORT_FOLLOWS);
                encode_part(sort, out);
            }
        }
    }

    /// Decodes a key.
    ///
    /// # Errors
    /// [`KeyError`], for bytes that do not encode a key.
    pub fn decode(encoded: &[u8]) -> Result<Self, KeyError> {
        let malformed = |reason| malformed(encoded, reason);
        let (partition, rest) = decode_part(encoded).map_err(malformed)?;
        let (sort, rest) = match rest.split_first() {
            Some((&NO_SORT, rest)) => (None, rest),
            Some((&SORT_FOLLOWS, rest)) => {
                let (sort, rest) = decode_part(rest).map_err(malformed)?;
                (Some(sort), rest)
            }
            Some(_) => return Err(malformed("unknown mark after the partition")),
            None => return Err(malformed("it ends after the partition")),
        };
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        Key::new(partition, sort)
    }
}

impl fmt::Display for Key {
    /// The parts as text where they are UTF-8, in hexadecimal where they are not: `web`, `web/12:00`, `0xff00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_part(&self.partition, f)?;
        if let Some(sort) = &self.sort {
            f.write_str("/")?;
            fmt_part(sort, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(partition: &str) -> Result<Self, KeyError> {
        Key::of(Bytes::copy_from_slice(partition.as_bytes()))
    }
}

/// The key of `key`'s record in [`Table::Records`](crate::store::Table::Records): all keys of a keyspace are
/// contiguous, in key order.
pub fn record_key(keyspace: KeyspaceId, key: &Key) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + key.size() + 16);
    out.put_u32(keyspace.0);
    key.encode_into(&mut out);
    out.freeze()
}

/// Decodes a [`record_key`].
///
/// # Errors
/// [`KeyError`], for other bytes.
pub fn decode_record_key(bytes: &[u8]) -> Result<(KeyspaceId, Key), KeyError> {
    let (keyspace, key) = bytes
        .split_first_chunk()
        .ok_or_else(|| malformed(bytes, "it ends within the keyspace id"))?;
    Ok((KeyspaceId(u32::from_be_bytes(*keyspace)), Key::decode(key)?))
}

/// The row of [`Table::Meta`](crate::store::Table::Meta) in which a keyspace's replica reserves numbers.
pub fn counter_row(keyspace: KeyspaceId) -> Bytes {
    format!("counter/{}", keyspace.0).into()
}

/// The key of `key` in [`Table::TokenIndex`](crate::store::Table::TokenIndex): all keys of a keyspace are
/// contiguous, in ring order.
pub fn index_key(keyspace: KeyspaceId, token: u64, key: &Key) -> Bytes {
    let mut out = BytesMut::with_capacity(12 + key.size() + 16);
    out.put_u32(keyspace.0);
    out.put_u64(token);
    key.encode_into(&mut out);
    out.freeze()
}

/// Decodes an [`index_key`].
///
/// # Errors
/// [`KeyError`], for other bytes.
pub fn decode_index_key(bytes: &[u8]) -> Result<(KeyspaceId, u64, Key), KeyError> {
    let short = || malformed(bytes, "it ends within the keyspace id or the token");
    let (keyspace, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let (token, key) = rest.split_first_chunk().ok_or_else(short)?;
    Ok((
        KeyspaceId(u32::from_be_bytes(*keyspace)),
        u64::from_be_bytes(*token),
        Key::decode(key)?,
    ))
}

/// The rows of [`Table::Records`](crate::store::Table::Records) from `start` (inclusive) to `end`
/// (exclusive); `None` is the keyspace's first or last key. Empty when `end` is not after `start`.
pub fn record_range(keyspace: KeyspaceId, start: Option<&Key>, end: Option<&Key>) -> Range<Bytes> {
    let start = match start {
        Some(key) => record_key(keyspace, key),
        None => Bytes::copy_from_slice(&keyspace.0.to_be_bytes()),
    };
    let end = match (end, keyspace.0.checked_add(1)) {
        (Some(key), _) => record_key(keyspace, key),
        (None, Some(next)) => Bytes::copy_from_slice(&next.to_be_bytes()),
        // The last keyspace has no successor, but a run of ff longer than any key sorts after all of its
        // keys.
        (None, None) => Bytes::from_static(&[0xff; 4 + MAX_KEY + 1]),
    };
    start..end
}

/// Encodes one part and its end.
fn encode_part(part: &[u8], out: &mut BytesMut) {
    let mut rest = part;
    loop {
        let plain = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        out.put_slice(&rest[..plain]);
        rest = &rest[plain..];
        let run = rest
            .iter()
            .take(LONGEST_RUN)
            .position(|byte| *byte != 0)
            .unwrap_or(rest.len().min(LONGEST_RUN));
        out.put_u8(0);
        rest = &rest[run..];
        if run == LONGEST_RUN {
            out.put_u8(RUN_CONTINUES);
        } else if rest.is_empty() {
            out.put_u8(run as u8);
            return;
        } else {
            out.put_u8((256 - run) as u8);
        }
    }
}

/// Decodes one part; returns what follows its end.
fn decode_part(encoded: &[u8]) -> Result<(Bytes, &[u8]), &'static str> {
    let mut part = BytesMut::with_capacity(encoded.len());
    let mut rest = encoded;
    loop {
        let plain = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or("a part has no end")?;
        part.put_slice(&rest[..plain]);
        let run = *rest.get(plain + 1).ok_or("it ends within a run of zeros")?;
        rest = &rest[plain + 2..];
        if run < RUN_CONTINUES {
            part.put_bytes(0, usize::from(run));
            return Ok((part.freeze(), rest));
        }
        part.put_bytes(0, 256 - usize::from(run));
        if run > RUN_CONTINUES && matches!(rest.first(), None | Some(0)) {
            return Err("a run of zeros is not encoded as one");
        }
        // Stop before many short runs of a hostile string grow into a large part.
        if part.len() > MAX_KEY {
            return Err("a part is longer than the maximum key");
        }
    }
}

fn malformed(bytes: &[u8], reason: &'static str) -> KeyError {
    KeyError::Malformed {
        bytes: hexadecimal(&bytes[..bytes.len().min(64)]),
        reason,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fmt_part(part: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match std::str::from_utf8(part) {
        Ok(text) => write!(f, "{}", text.escape_debug()),
        Err(_) => write!(f, "0x{}", hexadecimal(part)),
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
