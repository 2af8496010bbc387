//! What can happen to a link, and what it asks its driver for.

use bytes::Bytes;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::wire::{Envelope, WireError};

/// The name of a session: random, agreed on by both ends, never zero, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

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
    /// They are larger than [`MAX_ENVELOPE`](crate::link::MAX_ENVELOPE).
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
