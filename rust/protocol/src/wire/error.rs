//! Decoding errors.

/// Why bytes from the wire cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// They are truncated.
    #[error("{what} of {size} byte(s) is truncated")]
    TooShort {
        /// The expected type.
        what: &'static str,
        /// How many bytes there were.
        size: usize,
    },
    /// They have trailing bytes.
    #[error("{what} has {extra} trailing byte(s)")]
    Trailing {
        /// The decoded type.
        what: &'static str,
        /// The number of trailing bytes.
        extra: usize,
    },
    /// They are malformed.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// The expected type.
        what: &'static str,
        /// The reason.
        reason: String,
    },
}

impl WireError {
    /// A [`WireError::Malformed`].
    pub fn malformed(what: &'static str, reason: impl std::fmt::Display) -> Self {
        WireError::Malformed {
            what,
            reason: reason.to_string(),
        }
    }
}
