//! The interface of invariants: observations of a run, with read access to the world.

use std::fmt;

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::role::{Effect, Event, RoleId};

use crate::disk::Change;

/// An observed event.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A role handled an event. Its effects have not been performed yet.
    Handled {
        /// The node.
        node: NodeId,
        /// The role.
        role: RoleId,
        /// The event.
        event: &'a Event,
        /// The effects.
        effects: &'a [Effect],
    },
    /// A commit became durable.
    Committed {
        /// The node.
        node: NodeId,
        /// The changed records.
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
    /// Its name.
    fn name(&self) -> &'static str;

    /// Checks an observation.
    ///
    /// # Errors
    /// A description of the violation.
    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String>;

    /// Checks the end of the run: all faults are healed and the cluster is quiescent.
    ///
    /// # Errors
    /// A description of the violation.
    fn finish(&mut self, world: &World) -> Result<(), String>;
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// When it was detected.
    pub at: Instant,
    /// The description.
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
