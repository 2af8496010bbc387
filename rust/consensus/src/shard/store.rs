//! The state machine of a shard: executes commands on rows.
//!
//! The rows are on disk, and a command is applied without waiting for the disk. So the rows that a command
//! depends on (only conditions do: a plain put overwrites any row) are read beforehand and
//! [learned](Machine::learn); its writes are collected until the host [takes](Machine::take) them.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::time::WallTime;
use quorate_protocol::shard_command::{Command, Condition, Outcome, Write};
use quorate_raft::types::{GroupId, LogPosition};

use crate::host::Machine;
use crate::rows;

/// A batch of commands on its way from the log to the rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    group: GroupId,
    /// The versions of rows that conditions need, after the applied commands; `None` for an absent row.
    versions: BTreeMap<Bytes, Option<u64>>,
    /// The writes since the last [take](Machine::take).
    written: BTreeMap<Bytes, Option<Bytes>>,
}

impl Machine for Store {
    type Command = Command;
    type Outcome = Outcome;

    fn resume(group: GroupId, _row: Option<&Bytes>) -> Result<Self, String> {
        Ok(Store {
            group,
            versions: BTreeMap::new(),
            written: BTreeMap::new(),
        })
    }

    /// The rows whose versions conditions need.
    fn required_rows(&self, command: &Command) -> Vec<Bytes> {
        let Command::Write(writes) = command else {
            return Vec::new();
        };
        let conditional = writes.iter().filter(|write| write.condition != Condition::Any);
        conditional
            .map(|write| rows::record_key(self.group, &write.key))
            .collect()
    }

    fn is_known(&self, row: &Bytes) -> bool {
        self.versions.contains_key(row)
    }

    fn learn(&mut self, row: Bytes, value: Option<&Bytes>) -> Result<(), Error> {
        let record = value.map(|value| rows::decode_record(value)).transpose()?;
        self.versions.insert(row, record.map(|record| record.version));
        Ok(())
    }

    /// # Panics
    /// If a row that a condition needs is not known.
    fn execute(&mut self, position: LogPosition, time: WallTime, command: Command) -> Outcome {
        match command {
            Command::Write(writes) => self.write(position, time, writes),
            Command::Append { source, data } => {
                let row = rows::entry_key(self.group, position.index.0);
                let entry = rows::encode_entry(position.term.0, time, source, data);
                self.written.insert(row, Some(entry));
                done(position)
            }
        }
    }

    fn take(&mut self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.versions.clear();
        std::mem::take(&mut self.written)
    }
}

impl Store {
    fn write(&mut self, position: LogPosition, time: WallTime, writes: Vec<Write>) -> Outcome {
        let version = position.index.0;
        for (place, write) in (0..).zip(&writes) {
            if write.condition == Condition::Any {
                continue;
            }
            let row = rows::record_key(self.group, &write.key);
            let current = *self
                .versions
                .get(&row)
                .expect("the rows of a condition are read before");
            let holds = match write.condition {
                Condition::Any => true,
                Condition::Absent => current.is_none(),
                Condition::Version(wanted) => current == Some(wanted),
            };
            if !holds {
                return Outcome::ConditionFailed {
                    write: place,
                    current,
                };
            }
        }
        for write in writes {
            let row = rows::record_key(self.group, &write.key);
            if let Some(known) = self.versions.get_mut(&row) {
                *known = write.value.is_some().then_some(version);
            }
            let value = write.value.map(|value| rows::encode_record(version, time, value));
            self.written.insert(row, value);
        }
        done(position)
    }
}

fn done(position: LogPosition) -> Outcome {
    Outcome::Done {
        index: position.index.0,
        term: position.term.0,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
