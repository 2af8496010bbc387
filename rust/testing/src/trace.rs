//! Trace events, for tests and transcripts.

use crate::disk::Store;
use crate::protocol::{EnvelopeOf, Protocol};

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The sender had no link.
    NoLink,
    /// The network dropped it.
    Network,
    /// The node is not running.
    Down,
    /// The node has no such role.
    NoRole,
    /// It had expired.
    Expired,
}

/// An event of interest for tests.
pub enum TraceEvent<P: Protocol> {
    /// A message from another node reached a role.
    Delivered(EnvelopeOf<P>),
    /// A message was not delivered, and why.
    Lost(EnvelopeOf<P>, Loss),
    /// A message from one role to another of the same node.
    Local(EnvelopeOf<P>),
    /// A role submitted a persist.
    Submitted {
        /// The node.
        node: P::NodeId,
        /// The operations.
        ops: Vec<<P::Store as Store>::Op>,
    },
    /// A disk completed or rejected a persist.
    Disk {
        /// The node.
        node: P::NodeId,
        /// The operations.
        ops: Vec<<P::Store as Store>::Op>,
        /// Whether it was rejected.
        refused: bool,
    },
    /// Output of an effect for tests.
    Output(P::NodeId, P::Output),
}
