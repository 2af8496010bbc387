//! Why bytes cannot be read.

/// Why bytes off the wire are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// They end too early.
    #[error("{what} of {size} byte(s) ends too early")]
    TooShort {
        /// What was being read.
        what: &'static str,
        /// How many bytes there were.
        size: usize,
    },
    /// They go on after the end.
    #[error("{what} is followed by {extra} byte(s) that belong to nothing")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes too many.
        extra: usize,
    },
    /// They make no sense.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
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
