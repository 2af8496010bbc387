//! The frame around every stored value: its kind, its length, and a checksum over it *and its key*.
//!
//! LMDB does not checksum its pages, so a corrupt byte of a value would be served. Each value is therefore stored as
//!
//! ```text
//! offset  size  field
//!      0     1  format version (1)
//!      1     1  kind
//!      2     4  length of the content, little endian
//!      6     4  CRC-32C of: bytes 0..6, the tag of the table, the row's key, the content; little endian
//!     10     -  content
//! ```
//!
//! The checksum covers the key although it is stored outside the value: a corrupt key, or a value under another key, is
//! detected as well.

use thiserror::Error;

/// The version that this program writes. Older versions stay readable; newer ones are rejected.
pub const FORMAT_VERSION: u8 = 1;

/// Bytes that the frame adds to a value.
pub const HEADER_BYTES: usize = 10;

/// What a frame holds. The discriminant is part of the disk format: variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A row of the state.
    Row = 1,
    /// Unapplied rows of the state: an entry of the node's own stream in the journal.
    Writes = 2,
    /// An entry of another stream of the journal.
    Entry = 3,
    /// A hard state in the journal.
    Hard = 4,
    /// The store's metadata.
    Own = 5,
}

/// What is wrong with a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Shorter than a frame's header.
    #[error("{0} bytes are too short for a record")]
    Short(usize),
    /// Written by a later version, or corrupt.
    #[error("format version {0} is unknown to this program, which knows version {FORMAT_VERSION}")]
    Version(u8),
    /// An unexpected kind.
    #[error("record kind {found}, where kind {expected} belongs")]
    Kind {
        /// The expected kind.
        expected: u8,
        /// The kind found.
        found: u8,
    },
    /// The length in the header is not the length of the content.
    #[error("length {stated} in the header, {found} bytes stored")]
    Length {
        /// The length that the header states.
        stated: u32,
        /// The stored bytes.
        found: usize,
    },
    /// The checksum does not match.
    #[error("checksum {stated:08x} in the header, {found:08x} computed")]
    Checksum {
        /// The checksum that the header states.
        stated: u32,
        /// The checksum of the stored bytes.
        found: u32,
    },
    /// The frame is valid, but its content cannot be decoded.
    #[error("the content cannot be decoded")]
    Content,
}

fn checksum(header: &[u8], tag: u8, key: &[u8], content: &[u8]) -> u32 {
    let crc = crc32c::crc32c(header);
    let crc = crc32c::crc32c_append(crc, &[tag]);
    let crc = crc32c::crc32c_append(crc, key);
    crc32c::crc32c_append(crc, content)
}

/// Appends the frame of `content`, to be stored under `key` of the table `tag`, to `out`.
///
/// # Panics
/// If the content is 4 GiB or longer.
pub fn encode(out: &mut Vec<u8>, kind: Kind, tag: u8, key: &[u8], content: &[u8]) {
    let start = out.len();
    out.reserve(HEADER_BYTES + content.len());
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.extend_from_slice(content);
    seal(&mut out[start..], kind, tag, key);
}

/// Fills in the header of a frame whose content is in place behind [`HEADER_BYTES`] of room.
///
/// # Panics
/// If there is no room for the header, or the content is 4 GiB or longer.
pub fn seal(framed: &mut [u8], kind: Kind, tag: u8, key: &[u8]) {
    let (header, content) = framed.split_at_mut(HEADER_BYTES);
    let length = u32::try_from(content.len()).expect("a record is shorter than 4 GiB");
    header[0] = FORMAT_VERSION;
    header[1] = kind as u8;
    header[2..6].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(&header[..6], tag, key, content);
    header[6..].copy_from_slice(&crc.to_le_bytes());
}

/// The content of the frame `stored`, found under `key` of the table `tag`.
///
/// # Errors
/// Why the frame is invalid; its content must not be used.
pub fn decode<'a>(kind: Kind, tag: u8, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let Some((header, content)) = stored.split_at_checked(HEADER_BYTES) else {
        return Err(RecordError::Short(stored.len()));
    };
    if header[0] != FORMAT_VERSION {
        return Err(RecordError::Version(header[0]));
    }
    if header[1] != kind as u8 {
        return Err(RecordError::Kind {
            expected: kind as u8,
            found: header[1],
        });
    }
    let length = u32::from_le_bytes([header[2], header[3], header[4], header[5]]);
    if length as usize != content.len() {
        return Err(RecordError::Length {
            stated: length,
            found: content.len(),
        });
    }
    let stated = u32::from_le_bytes([header[6], header[7], header[8], header[9]]);
    let found = checksum(&header[..6], tag, key, content);
    if stated != found {
        return Err(RecordError::Checksum { stated, found });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(kind: Kind, tag: u8, key: &[u8], content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, kind, tag, key, content);
        out
    }

    #[test]
    fn golden_bytes() {
        let kinds = [Kind::Row, Kind::Writes, Kind::Entry, Kind::Hard, Kind::Own];
        assert_eq!(kinds.map(|kind| kind as u8), [1, 2, 3, 4, 5]);
        assert_eq!(
            framed(Kind::Row, 1, b"key", b"value"),
            [
                1, 1, 5, 0, 0, 0, 0x20, 0x48, 0x0b, 0x03, b'v', b'a', b'l', b'u', b'e'
            ]
        );
        assert_eq!(
            framed(Kind::Own, 0, b"applied", b""),
            [1, 5, 0, 0, 0, 0, 0xe4, 0xc6, 0x02, 0x27]
        );
    }

    #[test]
    fn checksum_is_the_castagnoli_polynomial() {
        // The check value of CRC-32C in every catalogue.
        assert_eq!(checksum(b"1234", b'5', b"67", b"89"), 0xe306_9283);
    }

    #[test]
    fn a_frame_under_another_key_is_detected() {
        let stored = framed(Kind::Row, 1, b"key", b"value");
        assert!(decode(Kind::Row, 1, b"key", &stored).is_ok());
        assert!(matches!(
            decode(Kind::Row, 1, b"kez", &stored),
            Err(RecordError::Checksum { .. })
        ));
        assert!(matches!(
            decode(Kind::Row, 2, b"key", &stored),
            Err(RecordError::Checksum { .. })
        ));
    }

    #[test]
    fn a_newer_version_is_rejected_by_number() {
        let mut stored = framed(Kind::Row, 1, b"key", b"value");
        stored[0] = 2;
        assert_eq!(
            decode(Kind::Row, 1, b"key", &stored),
            Err(RecordError::Version(2))
        );
    }

    proptest! {
        #[test]
        fn decodes_to_what_was_encoded(
            tag: u8,
            key in proptest::collection::vec(any::<u8>(), 0..2000),
            content in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let stored = framed(Kind::Entry, tag, &key, &content);
            prop_assert_eq!(decode(Kind::Entry, tag, &key, &stored), Ok(&content[..]));
        }

        #[test]
        fn every_flipped_bit_is_detected(
            key in proptest::collection::vec(any::<u8>(), 1..40),
            content in proptest::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index,
            bit in 0..8u8,
        ) {
            let mut stored = framed(Kind::Row, 1, &key, &content);
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            prop_assert!(decode(Kind::Row, 1, &key, &stored).is_err());
        }

        #[test]
        fn any_truncation_is_detected(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index,
        ) {
            let stored = framed(Kind::Row, 1, b"k", &content);
            prop_assert!(decode(Kind::Row, 1, b"k", &stored[..at.index(stored.len())]).is_err());
        }

        #[test]
        fn garbage_never_panics(stored in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(Kind::Row, 1, b"k", &stored);
        }
    }
}
