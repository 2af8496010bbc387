//! The state machine that a group replicates.

use bytes::Bytes;
use quorate_core::time::WallTime;

use crate::format::FormatError;
use crate::types::LogPosition;

/// Something that executes commands.
///
/// It must be deterministic: the same commands in the same order give the same answers and the same state on
/// every server, now and when the log is applied again after a restart.
pub trait StateMachine {
    /// What the bytes of a command say.
    type Command;

    /// Reads a command, before anything is changed by it.
    ///
    /// # Errors
    /// [`FormatError`] if it is none that this program knows. Then the server stops: it must not go on without it.
    fn decode(command: &Bytes) -> Result<Self::Command, FormatError>;

    /// Applies a committed command and gives the answer for its proposer. `time` is the leader's wall clock
    /// when the command was proposed, as the log has it; it never runs backwards.
    fn apply(&mut self, position: LogPosition, time: WallTime, command: Self::Command) -> Bytes;
}

/// A state machine in memory, small enough for its snapshots to be made and sent in one piece of memory.
/// One that is not is driven by a host of its own from the [`Action`](super::action::Action)s of
/// [`Raft`](super::Raft). It begins as `default()`.
pub trait Machine: StateMachine + Clone + Default {
    /// Answers a question without changing anything.
    fn query(&self, query: &Bytes) -> Bytes;

    /// The whole state.
    fn save(&self) -> Bytes;

    /// The state that was saved.
    ///
    /// # Errors
    /// [`FormatError`] if `bytes` are not what `save` gives.
    fn load(bytes: &Bytes) -> Result<Self, FormatError>;
}
