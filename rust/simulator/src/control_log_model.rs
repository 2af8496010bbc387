//! The committed changes of the control plane, and their outcomes: the [log model](crate::log_model) of its group.
//!
//! The outcomes come from a state machine of the same kind, which applies the committed entries. Other invariants check
//! that the nodes reach the same state.

use std::collections::BTreeSet;

use quorate_consensus::control::ControlPlane;
use quorate_protocol::control_command::{Change, Command, Outcome};
use quorate_raft::Raft;
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::sessions::{Logged, Request};
use quorate_raft::types::LogIndex;
use quorate_versions::WriteId;

/// A change that was executed, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its id.
    pub id: WriteId,
    /// The command.
    pub command: Command,
    /// The outcome.
    pub outcome: Outcome,
}

/// The model of the control plane's log.
#[derive(Clone, Debug, Default)]
pub struct ControlLogModel {
    machine: ControlPlane,
    applied: LogIndex,
    names: BTreeSet<WriteId>,
    executed: Vec<Executed>,
}

impl ControlLogModel {
    /// All executed changes, in order.
    pub fn executed(&self) -> &[Executed] {
        &self.executed
    }

    /// Adds the entries that a server is the first to have committed.
    ///
    /// # Errors
    /// An entry that the control plane does not know.
    pub fn watch(&mut self, raft: &Raft) -> Result<(), String> {
        while self.applied < raft.log().commit() {
            let index = self.applied.next();
            let Some(entry) = raft.log().entry(index) else {
                return Err(format!(
                    "no server was seen to commit entry {index} of the control plane"
                ));
            };
            self.commit(entry)?;
        }
        Ok(())
    }

    /// Adds the next committed entry.
    fn commit(&mut self, entry: &Entry) -> Result<(), String> {
        self.applied = entry.index;
        if let EntryKind::Command(bytes) = &entry.kind
            && let logged = Logged::<Change>::decode(bytes).map_err(|error| error.to_string())?
            && let Request::Plain(change) = logged.request
        {
            let outcome = self.machine.apply(entry.position(), change.clone());
            let Change { id, command } = change;
            if self.names.insert(id) {
                self.executed.push(Executed { id, command, outcome });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::error::Error;
    use quorate_core::time::WallTime;
    use quorate_raft::sessions::logged;
    use quorate_raft::types::Term;

    use super::*;

    #[test]
    fn a_change_that_is_in_the_log_twice_is_executed_once() {
        let mut log_model = ControlLogModel::default();
        let id = WriteId {
            client: 7,
            sequence: 1,
        };
        let command = Command::DropKeyspace {
            name: "users".to_owned(),
        };
        let change = Change {
            id,
            command: command.clone(),
        };
        let kinds = [
            EntryKind::Empty,
            EntryKind::Command(logged(WallTime(1), Request::Plain(change.clone()))),
            EntryKind::Command(logged(WallTime(2), Request::Plain(change.clone()))),
        ];
        for (index, kind) in (1..).zip(kinds) {
            let entry = Entry {
                term: Term(1),
                index: LogIndex(index),
                kind,
            };
            log_model.commit(&entry).unwrap();
        }
        let [executed] = log_model.executed() else {
            panic!("{:?}", log_model.executed());
        };
        assert_eq!((executed.id, &executed.command), (id, &command));
        assert!(matches!(executed.outcome, Outcome::Refused(Error::NotFound(_))));
    }
}
