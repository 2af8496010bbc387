//! The wire format between two nodes: envelopes, and the hello that opens every connection.
//!
//! * An [`Envelope`] is one message of one role to another, with its [`Header`](crate::message::Header). It does not
//!   contain the nodes: a session has one node at each end, identified in the hello.
//! * A [`PeerHello`] and its [`PeerAnswer`] are exchanged on the bare stream, before anything else. They negotiate the
//!   version, and reject unknown nodes, other clusters, foreign data directories, and nodes that place keys differently:
//!   see [`Layout`].
//!
//! The encoding is postcard, whose integers are variable-length and whose enums are numbered by position: variants and
//! fields are only ever appended. A test compares each message with its golden bytes.
//!
//! **Deadlines** are instants of one process, which mean nothing in another. So an envelope carries the milliseconds
//! that were left when it was sent, rounded down, in a prefix of four bytes of fixed width: a message may wait in a queue
//! in its encoded form, and only the prefix is rewritten when it is sent.

mod envelope;
mod error;
mod hello;
mod layout;

pub use envelope::{DEADLINE_BYTES, Envelope, stamp_deadline};
pub use error::WireError;
pub use hello::{
    HELLO_PREFIX, MAX_HELLO, PEER_MAGIC, PEER_VERSION_MAX, PEER_VERSION_MIN, PeerAnswer, PeerHello,
    PeerWelcome, hello_body_length,
};
pub use layout::{Difference, Layout};

#[cfg(test)]
mod tests;
