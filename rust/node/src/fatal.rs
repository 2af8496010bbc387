//! Fail fast: how a node ends when it must not continue.
//!
//! A role that panicked may have made promises that it has lost, and a store whose sync failed may have lost what
//! it acknowledged. Neither is retried or restarted in place: the process exits immediately without answering, and the
//! next one recovers from disk.

use std::sync::Arc;

use quorate_protocol::role::RoleId;

/// The exit status after a fatal error.
pub const EXIT_FATAL: i32 = 70;

/// Why a node must not continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A role panicked: one of its invariants does not hold.
    #[error("role {role:?} broke an invariant: {reason}")]
    Role {
        /// Which.
        role: RoleId,
        /// The panic message.
        reason: String,
    },
    /// The store failed.
    #[error("storage failed: {0}")]
    Storage(String),
    /// A peer knows this node with another data directory.
    #[error("{0}")]
    Disowned(String),
    /// The node cannot create a role.
    #[error("{0}")]
    Wiring(String),
    /// An actor ended unexpectedly.
    #[error("an actor ended unexpectedly: {0}")]
    Actor(String),
}

/// Ends the node. In a node's process this does not return; tests substitute a callback that does.
#[derive(Clone)]
pub struct Fatal(Arc<dyn Fn(FatalError) + Send + Sync>);

impl Fatal {
    /// Ends the node by calling `end`.
    pub fn new(end: impl Fn(FatalError) + Send + Sync + 'static) -> Self {
        Fatal(Arc::new(end))
    }

    /// Ends the node.
    pub fn raise(&self, error: FatalError) {
        tracing::error!(%error, "fatal error");
        (self.0)(error);
    }
}
