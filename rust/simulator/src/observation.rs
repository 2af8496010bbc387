//! What whoever watches a run is shown of it: each thing that happens, and the world to look at, not to change.

use std::fmt;

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::role::{Effect, Event, RoleId};

use crate::disk::Change;

/// Something that just happened.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A role took an event, and these are its effects. They have not been performed yet.
    Handled {
        /// On which node.
        node: NodeId,
        /// Which role.
        role: RoleId,
        /// What it was given.
        event: &'a Event,
        /// What it wants done.
        effects: &'a [Effect],
    },
    /// A commit became durable.
    Committed {
        /// On which node.
        node: NodeId,
        /// The records that it wrote.
        changes: &'a [Change],
    },
    /// An operation of a client completed.
    Completed {
        /// Its number in the history.
        operation: usize,
    },
}

/// A property of every run.
pub trait Invariant<World> {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    /// Says in words how the property is broken.
    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String>;

    /// The run is over: all faults are healed, everything has come to rest.
    ///
    /// # Errors
    /// Says in words how the property is broken.
    fn finish(&mut self, world: &World) -> Result<(), String>;
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When it was seen.
    pub at: Instant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} does not hold at {:.6} s: {}",
            self.invariant,
            self.at.0 as f64 / 1e6,
            self.what
        )
    }
}
