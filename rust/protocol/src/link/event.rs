//! The events and effects of a link.

use bytes::Bytes;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::wire::{Envelope, WireError};

/// The id of a session: random, agreed on by both ends, never zero, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// An event of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEvent {
    /// A connection to the peer was established. It replaces the previous session, if there is one.
    SessionUp {
        /// Its id.
        session: SessionId,
    },
    /// The connection has ended.
    SessionDown {
        /// Its id; events of other sessions than the current one are ignored.
        session: SessionId,
        /// The reason, as text.
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
        /// The batch of the peer's [`LinkEffect::Transmit`].
        batch: Bytes,
    },
    /// Roles have taken messages of a [`LinkEffect::Deliver`].
    Taken {
        /// The session of that delivery.
        session: SessionId,
        /// As in that delivery.
        bytes: u64,
        /// As in that delivery.
        count: u64,
    },
    /// The timer of the last [`LinkEffect::SetTimer`] fired.
    Timer,
}

/// An effect that a link requests from its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEffect {
    /// Send this batch, then return [`LinkEvent::Sent`].
    Transmit {
        /// On which session.
        session: SessionId,
        /// At most [`MAX_BATCH`] bytes.
        batch: Bytes,
    },
    /// Deliver these messages to their roles, and return [`LinkEvent::Taken`] when they have been taken.
    Deliver {
        /// The session on which they arrived.
        session: SessionId,
        /// In the order of arrival.
        envelopes: Vec<Envelope>,
        /// Their credit in bytes, to be returned.
        bytes: u64,
        /// Their credit in envelopes, to be returned.
        count: u64,
    },
    /// Close this connection; it is no longer the link's session.
    Close {
        /// Which.
        session: SessionId,
        /// The reason.
        reason: CloseReason,
    },
    /// The peer is reachable: a batch of it arrived.
    Up {
        /// On which session.
        session: SessionId,
    },
    /// The peer is no longer reachable.
    Down {
        /// The session that was up.
        session: SessionId,
        /// The reason, as text.
        reason: String,
    },
    /// Return [`LinkEvent::Timer`] at this time.
    SetTimer {
        /// When.
        at: Instant,
    },
    /// Messages were dropped.
    Shed {
        /// The cause.
        cause: ShedCause,
        /// The number of messages.
        count: u64,
    },
}

/// Why messages were dropped at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShedCause {
    /// Their lane is full.
    Full,
    /// There has been no session for the grace period.
    NoSession,
    /// Their deadline passed in the queue.
    Expired,
    /// They are larger than [`MAX_ENVELOPE`](crate::link::MAX_ENVELOPE).
    TooLarge,
}

/// Why a link closes a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum CloseReason {
    /// Nothing arrived for the idle timeout.
    #[error("nothing received for {silent_ms} ms")]
    Idle {
        /// The time since the last arrival, in milliseconds.
        silent_ms: u64,
    },
    /// A newer session replaced it.
    #[error("replaced by a newer session")]
    Replaced,
    /// The peer sent an invalid batch.
    #[error("the peer violated the protocol: {0}")]
    Violation(String),
}

impl From<WireError> for CloseReason {
    fn from(error: WireError) -> Self {
        CloseReason::Violation(error.to_string())
    }
}
