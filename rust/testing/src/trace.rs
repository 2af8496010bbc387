//! What has happened, for tests and for people.

use crate::disk::Store;
use crate::protocol::{EnvelopeOf, Protocol};

/// Why a message reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The sender had no link.
    NoLink,
    /// The network lost it.
    Network,
    /// The node does not run.
    Down,
    /// The node has no such role.
    NoRole,
    /// It came too late to be of use.
    Expired,
}

/// Something that a test may want to see.
pub enum TraceEvent<P: Protocol> {
    /// A message from another node reached a role.
    Delivered(EnvelopeOf<P>),
    /// A message reached nobody: why.
    Lost(EnvelopeOf<P>, Loss),
    /// A message from one role to another of the same node.
    Local(EnvelopeOf<P>),
    /// A role asked for this to become durable.
    Submitted {
        /// On which node.
        node: P::NodeId,
        /// What.
        ops: Vec<<P::Store as Store>::Op>,
    },
    /// A disk made this durable, or refused to.
    Disk {
        /// On which node.
        node: P::NodeId,
        /// What.
        ops: Vec<<P::Store as Store>::Op>,
        /// Whether it was refused.
        refused: bool,
    },
    /// An effect that only tests and people see.
    Output(P::NodeId, P::Output),
}
