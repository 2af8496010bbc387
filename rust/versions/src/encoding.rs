//! The encoding of versions: in records, in messages, and in a client's context.
//!
//! One byte of format version, then postcard. The encoding is canonical (vectors are ordered maps, siblings are
//! sorted), so equal states have equal bytes and equal digests.

use bytes::Bytes;
use quorate_core::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::KeyState;

/// The latest format of an encoded [`KeyState`].
const STATE_FORMAT: u8 = 1;

/// Why bytes are not a key state or a context.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("{what} without bytes")]
    Empty {
        /// The expected kind.
        what: &'static str,
    },
    /// Written by a later version, or not by this program.
    #[error("{what} in format {found}, but this program knows formats up to {newest}")]
    UnknownFormat {
        /// The expected kind.
        what: &'static str,
        /// The first byte.
        found: u8,
        /// The latest known format.
        newest: u8,
    },
    /// The format is known, but the content is malformed.
    #[error("malformed {what} of {size} bytes: {reason}")]
    Malformed {
        /// The expected kind.
        what: &'static str,
        /// The number of bytes.
        size: usize,
        /// The reason.
        reason: String,
    },
}

impl From<DecodeError> for Error {
    /// For bytes off a disk; a client's context is [`Error::InvalidArgument`] instead.
    fn from(error: DecodeError) -> Error {
        Error::CorruptRecord(error.to_string())
    }
}

impl KeyState {
    /// Encodes the state, for storage and messages.
    pub fn encode(&self) -> Bytes {
        encode(STATE_FORMAT, self, self.encoded_size())
    }

    /// Decodes a state.
    ///
    /// # Errors
    /// [`DecodeError`], also for states that violate an invariant.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("key state", STATE_FORMAT, bytes)
    }

    /// The size of the encoding, without allocating it.
    pub fn encoded_size(&self) -> usize {
        let size = postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default());
        1 + size.expect("counting bytes cannot fail")
    }

    /// A hash of the encoding (xxh3): equal states have equal digests, so replicas compare states by digest.
    pub fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.encode())
    }
}

pub(super) fn encode(format: u8, value: &impl Serialize, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(size);
    bytes.push(format);
    let bytes = postcard::to_extend(value, bytes).expect("plain data in memory always encodes");
    Bytes::from(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    newest: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let malformed = |reason: String| DecodeError::Malformed {
        what,
        size: bytes.len(),
        reason,
    };
    let (&found, body) = bytes.split_first().ok_or(DecodeError::Empty { what })?;
    if found == 0 || found > newest {
        return Err(DecodeError::UnknownFormat { what, found, newest });
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes follow the end", rest.len())));
    }
    Ok(value)
}
