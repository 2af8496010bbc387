//! The state machine that a group replicates.

use bytes::Bytes;
use quorate_core::time::WallTime;

use crate::format::FormatError;
use crate::types::LogPosition;

/// A state machine that executes commands.
///
/// It must be deterministic: the same commands in the same order give the same answers and the same state on
/// every server, also when the log is applied again after a restart.
pub trait StateMachine {
    /// A decoded command.
    type Command;

    /// Decodes a command, without changing anything.
    ///
    /// # Errors
    /// [`FormatError`] if this program does not know the command. The server must then stop: it would diverge
    /// without it.
    fn decode(command: &Bytes) -> Result<Self::Command, FormatError>;

    /// Applies a committed command and returns the answer to its proposer. `time` is the leader's wall clock
    /// when the command was proposed, as recorded in the log; it never runs backwards.
    fn apply(&mut self, position: LogPosition, time: WallTime, command: Self::Command) -> Bytes;
}

/// A state machine in memory, small enough for a snapshot to be made and sent as one buffer. Larger ones need
/// a host of their own, which performs the [`Action`](super::action::Action)s of [`Raft`](super::Raft). The
/// initial state is `default()`.
pub trait Machine: StateMachine + Clone + Default {
    /// Answers a query, without changing anything.
    fn query(&self, query: &Bytes) -> Bytes;

    /// Encodes the whole state.
    fn save(&self) -> Bytes;

    /// Decodes a saved state.
    ///
    /// # Errors
    /// [`FormatError`] if `bytes` were not written by `save`.
    fn load(bytes: &Bytes) -> Result<Self, FormatError>;
}
