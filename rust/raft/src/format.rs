//! The bytes on disk: a format version, then postcard.
//!
//! Every stored value of a Raft group (log entry, hard state, the log's beginning, snapshot) begins with one byte
//! that names its format, so that a later program can read what an earlier one wrote and refuse what it does
//! not know. What stands inside a value (the command of an entry, the answers that a session keeps) has its format:
//! one byte, however deep it goes. Enums are numbered by position: variants are only ever appended. A test holds each kind to the
//! bytes it has always had. Whether the bytes are whole is the store's business (each record has a checksum
//! there).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The format that this program writes.
pub const FORMAT_VERSION: u8 = 2;

/// Why stored bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FormatError {
    /// Another program wrote it.
    #[error(
        "{what} has format version {found}, this program reads version {FORMAT_VERSION}: run the program that wrote it"
    )]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version it says.
        found: u8,
    },
    /// It makes no sense.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl FormatError {
    /// A [`FormatError::Malformed`].
    pub fn malformed(what: &'static str, reason: impl std::fmt::Display) -> Self {
        FormatError::Malformed {
            what,
            reason: reason.to_string(),
        }
    }
}

/// The form of what stands inside a stored value.
pub fn encode_inner<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_stdvec(value).expect("plain data can be encoded");
    bytes.into()
}

/// The value that stands inside a stored one.
///
/// # Errors
/// [`FormatError::Malformed`], naming `what` was being read.
pub fn decode_inner<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, FormatError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| FormatError::malformed(what, error))?;
    if !rest.is_empty() {
        return Err(FormatError::malformed(
            what,
            format!("{} byte(s) after its end", rest.len()),
        ));
    }
    Ok(value)
}

/// The stored form of `value`.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    // Plain data with known lengths: postcard has no other reason to fail.
    let bytes = postcard::to_extend(value, vec![FORMAT_VERSION]).expect("plain data can be encoded");
    bytes.into()
}

/// The value that was stored.
///
/// # Errors
/// [`FormatError`], naming `what` was being read.
pub fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, FormatError> {
    let (version, body) = bytes
        .split_first()
        .ok_or_else(|| FormatError::malformed(what, "it is empty"))?;
    if *version != FORMAT_VERSION {
        return Err(FormatError::Version {
            what,
            found: *version,
        });
    }
    decode_inner(what, body)
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
