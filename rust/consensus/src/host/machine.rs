//! The state machine of a host: its state is rows of the store.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::time::WallTime;
use quorate_raft::sessions::SessionAnswer;
use quorate_raft::types::{GroupId, LogPosition};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state machine whose state is rows of its group in [`Table::Groups`](quorate_core::store::Table::Groups),
/// or is in memory and written to one row.
///
/// It must be deterministic: the same commands in the same order have the same outcomes and write the same
/// rows on every server.
pub(crate) trait Machine: Clone + Debug + PartialEq + Eq + Hash {
    /// A command.
    type Command: Clone + Debug + PartialEq + Eq + Hash + Serialize + DeserializeOwned;
    /// The outcome of a command.
    type Outcome: SessionAnswer + Debug;

    /// Whether the state is in memory, so that a command can be executed before its rows may be written:
    /// before its entry is durable on this node.
    const IN_MEMORY: bool = false;

    /// The initial state, from the group's row for a state in memory ([`crate::rows::machine_key`]).
    ///
    /// # Errors
    /// The reason why the row cannot be decoded.
    fn resume(group: GroupId, row: Option<&Bytes>) -> Result<Self, String>;

    /// The rows that must be [learned](Self::learn) before this command is executed.
    fn required_rows(&self, _command: &Self::Command) -> Vec<Bytes> {
        Vec::new()
    }

    /// Whether the content of a row is known.
    fn is_known(&self, _row: &Bytes) -> bool {
        true
    }

    /// The content of a row, before any pending command is executed; `None` if it is absent.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`].
    fn learn(&mut self, _row: Bytes, _value: Option<&Bytes>) -> Result<(), Error> {
        Ok(())
    }

    /// Executes a committed command. `time` is its logged time, and never runs backwards.
    fn execute(&mut self, position: LogPosition, time: WallTime, command: Self::Command) -> Self::Outcome;

    /// Takes the rows written since the last call; ends a batch.
    fn take(&mut self) -> BTreeMap<Bytes, Option<Bytes>>;
}
