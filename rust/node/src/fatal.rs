//! Crash, don't limp: how a node ends when it must not go on.
//!
//! A role that panicked may have promised what it no longer remembers, and a store whose sync failed may have lost what
//! it promised. Neither is retried or restarted in place: the process ends at once, answers nobody, and the next one
//! recovers from disk.

use std::sync::Arc;

use quorate_protocol::role::RoleId;

/// The exit status of a node that stopped because it must not go on.
pub const EXIT_FATAL: i32 = 70;

/// Why a node must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A role panicked: one of its invariants does not hold.
    #[error("role {role:?} broke an invariant: {reason}")]
    Role {
        /// Which.
        role: RoleId,
        /// What it said.
        reason: String,
    },
    /// The store failed.
    #[error("storage failed: {0}")]
    Storage(String),
    /// A peer knows this node by another data directory.
    #[error("{0}")]
    Disowned(String),
    /// A role that the node cannot create.
    #[error("{0}")]
    Wiring(String),
    /// An actor ended that nobody asked to.
    #[error("an actor ended by itself: {0}")]
    Actor(String),
}

/// Ends the node. In a node's process this does not return; tests put something in its place that does.
#[derive(Clone)]
pub struct Fatal(Arc<dyn Fn(FatalError) + Send + Sync>);

impl Fatal {
    /// Ends the node by calling `end`.
    pub fn new(end: impl Fn(FatalError) + Send + Sync + 'static) -> Self {
        Fatal(Arc::new(end))
    }

    /// Ends the node.
    pub fn raise(&self, error: FatalError) {
        tracing::error!(%error, "the node must not go on");
        (self.0)(error);
    }
}
