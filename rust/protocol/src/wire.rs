//! What travels between two nodes: envelopes, and the hello that opens every connection.
//!
//! * An [`Envelope`] is one message of one role to another, with its [`Header`](crate::message::Header). The nodes
//!   themselves are not in it: a session has one node at each end, and the hello has named them.
//! * A [`PeerHello`] and its [`PeerAnswer`] are exchanged on the bare stream, before anything else. They settle which
//!   versions both speak, and keep strangers, other clusters and foreign data directories out, and nodes that would
//!   look for keys elsewhere: see [`Layout`].
//!
//! Everything is postcard, whose integers are variable-length and whose enums are numbered by position: variants and
//! fields are only ever appended. A test holds each message to the bytes it has always had.
//!
//! **Deadlines** are instants of one process, which mean nothing in another. So an envelope carries the milliseconds
//! that were left when it went onto the wire, rounded down, in four bytes of fixed width in front: a message may wait
//! in a queue in its encoded form, and only those bytes are written again when it leaves.

mod envelope;
mod hello;
mod layout;

pub use envelope::{DEADLINE_BYTES, Envelope, stamp_deadline};
pub use hello::{
    HELLO_PREFIX, MAX_HELLO, PEER_MAGIC, PEER_VERSION_MAX, PEER_VERSION_MIN, PeerAnswer, PeerHello,
    PeerWelcome, hello_body_length,
};
pub use layout::{Difference, Layout};

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

#[cfg(test)]
mod tests;
