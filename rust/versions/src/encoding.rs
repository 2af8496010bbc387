//! Versions as bytes: in records, in messages, and as the context that a client carries from a read to a put.
//!
//! One byte of format version, then postcard. The encoding is canonical (vectors are ordered maps, siblings are
//! sorted), so equal states have equal bytes and equal digests.

use bytes::Bytes;
use quorate_core::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::KeyState;

/// The newest format of an encoded [`KeyState`].
const STATE_FORMAT: u8 = 1;

/// Why bytes are not a key state or a context.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes at all.
    #[error("{what} of no bytes")]
    Empty {
        /// What they should have been.
        what: &'static str,
    },
    /// Written by a newer program, or not by this one at all.
    #[error("{what} in format {found}, but this program knows formats up to {newest}")]
    UnknownFormat {
        /// What they should have been.
        what: &'static str,
        /// The first byte.
        found: u8,
        /// The newest format known.
        newest: u8,
    },
    /// The format is known, but its rules are broken.
    #[error("malformed {what} of {size} bytes: {reason}")]
    Malformed {
        /// What they should have been.
        what: &'static str,
        /// How many bytes.
        size: usize,
        /// What is wrong with them.
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
    /// The state as bytes, for storage and messages.
    pub fn encode(&self) -> Bytes {
        encode(STATE_FORMAT, self, self.encoded_size())
    }

    /// The state that [`KeyState::encode`] made these bytes of.
    ///
    /// # Errors
    /// [`DecodeError`], also for states that break an invariant.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("key state", STATE_FORMAT, bytes)
    }

    /// The bytes that [`KeyState::encode`] returns, counted without making them.
    pub fn encoded_size(&self) -> usize {
        let size = postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default());
        1 + size.expect("counting bytes cannot fail")
    }

    /// A hash of the encoding (xxh3): equal states have equal digests, so replicas compare states by sending these.
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
        return Err(malformed(format!("{} bytes follow its end", rest.len())));
    }
    Ok(value)
}
