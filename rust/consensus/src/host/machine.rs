//! What a host replicates: a state whose rows are in the store.

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

/// A state machine whose state is rows of its group in [`Table::Groups`](quorate_core::store::Table::Groups), or is kept in memory
/// and written to one row.
///
/// It must be deterministic: the same commands in the same order have the same outcomes and the same rows on every server.
pub(crate) trait Machine: Clone + Debug + PartialEq + Eq + Hash {
    /// What can be executed.
    type Command: Clone + Debug + PartialEq + Eq + Hash + Serialize + DeserializeOwned;
    /// What becomes of it.
    type Outcome: SessionAnswer + Debug;

    /// Whether the state is kept in memory, so that a command can be executed before its rows may be written: before its entry is
    /// durable on this node.
    const IN_MEMORY: bool = false;

    /// The state that was written to the group's row for it, if it is one that is kept in memory ([`crate::rows::machine_key`]).
    ///
    /// # Errors
    /// Says in words why the row cannot be read.
    fn resume(group: GroupId, row: Option<&Bytes>) -> Result<Self, String>;

    /// The rows that must be [learned](Self::learn) before this command is executed.
    fn asks_about(&self, _command: &Self::Command) -> Vec<Bytes> {
        Vec::new()
    }

    /// Whether what a row has is known.
    fn knows(&self, _row: &Bytes) -> bool {
        true
    }

    /// This is what a row has, before anything that has not been executed; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`].
    fn learn(&mut self, _row: Bytes, _value: Option<&Bytes>) -> Result<(), Error> {
        Ok(())
    }

    /// Executes a committed command. `time` is what the log has for it, and never runs backwards.
    fn execute(&mut self, position: LogPosition, time: WallTime, command: Self::Command) -> Self::Outcome;

    /// The rows that were written since the last time; the end of a batch.
    fn take(&mut self) -> BTreeMap<Bytes, Option<Bytes>>;
}
