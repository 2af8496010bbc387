//! The link to one peer: what is sent when, and what is not sent at all.
//!
//! One [`Link`] stands at each end of a connection between two nodes. Roles hand it envelopes; it makes **batches**
//! of them. A **session** is one connection that has been agreed upon: an ordered stream of batches that ends at the
//! latest when either process does. Sessions come and go, the link stays.
//!
//! # Three lanes
//! | lane | what | credit | order |
//! |---|---|---|---|
//! | control | heartbeats, credit, and the rare small messages that must pass when data cannot ([`Message::lane`](crate::message::Message::lane)) | none | first |
//! | data | all other messages | yes | second |
//! | bulk | any envelope of more than [`BULK_THRESHOLD`] bytes, in chunks of at most [`CHUNK_BYTES`] | yes, and a window of 8 chunks | last |
//!
//! A batch has at most [`MAX_BATCH`] bytes and is made when the one before is out ([`LinkEvent::Sent`]). There is no
//! lingering: what has gathered by then goes together, so batches grow by themselves under load and a lone message
//! leaves at once. While chunks are ready, data leaves room for one in every batch, so that neither starves.
//!
//! The appends to a Raft group are delivered in their order: one that comes while a large one of its group has not left follows
//! it in the bulk lane, and a large one leaves after the smaller ones that were there before it
//! ([`Message::appends_to`](crate::message::Message::appends_to)).
//!
//! A heartbeat therefore never waits behind more than the batch before it and the window of chunks: half a mebibyte of
//! bulk, however large the value that is being sent.
//!
//! # Credit
//! The receiver of a session says how many bytes and envelopes it takes in before a role has taken them
//! ([`LinkEvent::Taken`]), and then how many have been taken. The sender never has more than that under way. So a slow
//! role stops its senders, and what it holds stays bounded; what waits at the sender is bounded by the lanes, and
//! beyond their bounds it is **shed**: counted, reported ([`LinkEffect::Shed`]) and gone. Nobody waits for credit.
//! Messages whose deadline has passed are shed too, since nobody waits for their answers.
//!
//! An envelope larger than the whole window goes alone: when nothing else is under way.
//!
//! # Sessions
//! A session that ends takes everything with it that was handed over: batches, unfinished bulk, credit. What waits in
//! the lanes stays for a grace period, so that a connection that is replaced within it loses nothing that was not yet
//! sent; after that, and until the next session, all messages are shed at once.
//!
//! Both ends send a heartbeat every 100 ms. A session on which nothing arrives for the idle deadline, one second, is
//! closed: a stopped process or a black-holed route looks like that. A peer is **up** from the first batch that arrives
//! on a session until that session ends. A process that was itself stopped finds all its timers late; it gives its peers
//! that much more time before it judges them.
//!
//! # What the driver owes
//! * A session's batches arrive in order and at most once; a repeated one is ignored, a gap closes the session.
//! * Session names never repeat.
//! * [`LinkEvent::Sent`] comes for each [`LinkEffect::Transmit`], unless the session ends first.
//! * One timer: a later [`LinkEffect::SetTimer`] replaces an earlier one.
//!
//! What this leaves out: who dials, hello and authentication, sockets. A link never reads anything but its events.

mod batch;
mod bulk;
mod credit;
mod lane;
mod session;
mod state;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::message::{BULK_THRESHOLD, Lane};
use quorate_core::time::Instant;

use crate::wire::{Envelope, WireError};

pub use batch::{BATCH_HEADER, session_of_batch};
pub use state::{Link, LinkTotals};

/// The most bytes of a batch.
pub const MAX_BATCH: usize = 256 << 10;
/// The most bytes of a chunk on the wire, its frame included; four fit into a batch.
pub const CHUNK_BYTES: usize = (64 << 10) - 64;
/// The most encoded bytes of one envelope; a larger one is shed. A key with all its siblings must fit.
pub const MAX_ENVELOPE: usize = 32 << 20;

/// The name of a session: random, agreed on by both ends, never zero, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// What a link allows itself and its peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkSettings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A session on which nothing arrives for this long is closed.
    pub idle: Duration,
    /// How long messages wait for a new session after one has ended.
    pub grace: Duration,
    /// Credit given to the peer: bytes of envelopes that no role has taken yet.
    pub window_bytes: u64,
    /// Credit given to the peer: envelopes that no role has taken yet.
    pub window_count: u64,
    /// Chunks under way that the peer has not seen yet, at most.
    pub window_chunks: u64,
    /// Bytes that wait in the control lane, at most.
    pub control_queue_bytes: usize,
    /// Bytes that wait in the data lane, at most.
    pub data_queue_bytes: usize,
    /// Envelopes that wait in the control lane, and in the data lane, at most.
    pub queue_count: usize,
    /// Bytes that wait in the bulk lane, at most; not less than [`MAX_ENVELOPE`].
    pub bulk_queue_bytes: usize,
}

impl Default for LinkSettings {
    fn default() -> Self {
        LinkSettings {
            heartbeat: Duration::from_millis(100),
            idle: Duration::from_secs(1),
            grace: Duration::from_secs(1),
            window_bytes: 4 << 20,
            window_count: 16 << 10,
            window_chunks: 8,
            control_queue_bytes: 128 << 10,
            data_queue_bytes: 8 << 20,
            queue_count: 64 << 10,
            bulk_queue_bytes: 64 << 20,
        }
    }
}

/// What can happen to a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEvent {
    /// A connection to the peer has been agreed upon. It replaces the session before it, if there is one.
    SessionUp {
        /// Its name.
        session: SessionId,
    },
    /// The connection has ended.
    SessionDown {
        /// Its name; an event about any but the current session means nothing.
        session: SessionId,
        /// Why, in words.
        reason: String,
    },
    /// Roles have messages for the peer.
    Enqueue(Vec<Envelope>),
    /// The batch of the last [`LinkEffect::Transmit`] has left this process.
    Sent {
        /// On which session.
        session: SessionId,
    },
    /// A batch arrived.
    Received {
        /// On which session.
        session: SessionId,
        /// The batch as [`LinkEffect::Transmit`] gave it to the peer's driver.
        batch: Bytes,
    },
    /// Roles have taken messages that [`LinkEffect::Deliver`] handed out.
    Taken {
        /// The session of that delivery.
        session: SessionId,
        /// As it was handed out.
        bytes: u64,
        /// As it was handed out.
        count: u64,
    },
    /// The time of the last [`LinkEffect::SetTimer`] has come.
    Timer,
}

/// What a link asks its driver for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEffect {
    /// Send this batch, then say [`LinkEvent::Sent`].
    Transmit {
        /// On which session.
        session: SessionId,
        /// At most [`MAX_BATCH`] bytes.
        batch: Bytes,
    },
    /// Give these messages to the roles they are for, and say [`LinkEvent::Taken`] once they have been taken.
    Deliver {
        /// On which session they came.
        session: SessionId,
        /// In the order in which they came.
        envelopes: Vec<Envelope>,
        /// Their credit in bytes, to be handed back.
        bytes: u64,
        /// Their credit in envelopes, to be handed back.
        count: u64,
    },
    /// End this connection; the link has forgotten it already.
    Close {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// The peer can be reached: a batch of it arrived.
    Up {
        /// On which session.
        session: SessionId,
    },
    /// The peer cannot be reached any longer.
    Down {
        /// The session that was up.
        session: SessionId,
        /// Why, in words.
        reason: String,
    },
    /// Say [`LinkEvent::Timer`] at this time.
    SetTimer {
        /// When.
        at: Instant,
    },
    /// Messages were thrown away.
    Shed {
        /// Why.
        cause: ShedCause,
        /// How many.
        count: u64,
    },
}

/// Why messages were thrown away at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShedCause {
    /// Their lane is full.
    Full,
    /// There is no session, and has not been for the grace period.
    NoSession,
    /// Their deadline passed while they waited.
    Expired,
    /// They are larger than [`MAX_ENVELOPE`].
    TooLarge,
}

/// Why a link closes a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum CloseReason {
    /// Nothing arrived for the idle deadline.
    #[error("nothing heard for {silent_ms} ms")]
    Idle {
        /// How long, in milliseconds.
        silent_ms: u64,
    },
    /// A newer session took its place.
    #[error("replaced by a newer session")]
    Replaced,
    /// The peer sent what no peer sends.
    #[error("the peer broke the protocol: {0}")]
    Violation(String),
}

impl From<WireError> for CloseReason {
    fn from(error: WireError) -> Self {
        CloseReason::Violation(error.to_string())
    }
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
