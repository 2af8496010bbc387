//! The state machine of a shard: commands on one side, rows on the other.
//!
//! The rows are on disk, and a command is applied without waiting for the disk. So what a command must know of a row before
//! it (only conditions must: a plain put writes whatever was there) is read beforehand and [learned](Machine::learn); what it
//! writes is collected until its host [takes](Machine::take) it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::time::WallTime;
use quorate_protocol::shard_command::{Command, Condition, Outcome, Write};
use quorate_raft::types::{GroupId, LogPosition};

use crate::host::Machine;
use crate::rows;

/// One batch of commands on its way from the log to the rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    group: GroupId,
    /// The versions of rows that conditions ask about, as they are after what was applied; `None` for one that is absent.
    versions: BTreeMap<Bytes, Option<u64>>,
    /// What was written since the last [take](Machine::take).
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

    /// The rows whose versions conditions ask about.
    fn asks_about(&self, command: &Command) -> Vec<Bytes> {
        let Command::Write(writes) = command else {
            return Vec::new();
        };
        let conditional = writes.iter().filter(|write| write.condition != Condition::Any);
        conditional
            .map(|write| rows::record_key(self.group, &write.key))
            .collect()
    }

    fn knows(&self, row: &Bytes) -> bool {
        self.versions.contains_key(row)
    }

    fn learn(&mut self, row: Bytes, value: Option<&Bytes>) -> Result<(), Error> {
        let record = value.map(|value| rows::decode_record(value)).transpose()?;
        self.versions.insert(row, record.map(|record| record.version));
        Ok(())
    }

    /// # Panics
    /// If a row that a condition asks about is not known.
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
                .expect("what a condition asks about was read before");
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
