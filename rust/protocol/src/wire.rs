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
