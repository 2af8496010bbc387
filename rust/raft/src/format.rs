//! The bytes on disk: a format version, then postcard.
//!
//! Every stored value of a Raft group (log entry, hard state, start of the log, snapshot) begins with one
//! byte that names its format, so that a later program can read what an earlier one wrote and reject what it
//! does not know. A nested value (the command of an entry, the answers that a session stores) has no version
//! byte of its own. Enums are numbered by position: variants are only ever appended. A test pins the bytes of
//! each kind. Integrity is the store's concern (each record has a checksum there).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The format version that this program writes.
pub const FORMAT_VERSION: u8 = 2;

/// Why stored bytes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FormatError {
    /// Another version of the program wrote it.
    #[error(
        "{what} has format version {found}, this program reads version {FORMAT_VERSION}: run the program that wrote it"
    )]
    Version {
        /// The kind of value.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// It cannot be decoded.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The kind of value.
        what: &'static str,
        /// The reason.
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

/// The encoding of a nested value.
pub fn encode_inner<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_stdvec(value).expect("plain data can be encoded");
    bytes.into()
}

/// Decodes a nested value.
///
/// # Errors
/// [`FormatError::Malformed`], which names the kind of value, `what`.
pub fn decode_inner<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, FormatError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| FormatError::malformed(what, error))?;
    if !rest.is_empty() {
        return Err(FormatError::malformed(
            what,
            format!("{} byte(s) after the end", rest.len()),
        ));
    }
    Ok(value)
}

/// The encoding of a stored value.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    // Plain data with known lengths: postcard has no other reason to fail.
    let bytes = postcard::to_extend(value, vec![FORMAT_VERSION]).expect("plain data can be encoded");
    bytes.into()
}

/// Decodes a stored value.
///
/// # Errors
/// [`FormatError`], which names the kind of value, `what`.
pub fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, FormatError> {
    let (version, body) = bytes
        .split_first()
        .ok_or_else(|| FormatError::malformed(what, "the value is empty"))?;
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
