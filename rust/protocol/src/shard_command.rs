//! The commands of a shard's log, and their outcomes.
//!
//! On disk a command is postcard inside a logged request of [`quorate_raft::sessions`], inside a log entry, whose format
//! version covers all of it: variants are only ever appended.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::key::{Key, MAX_VALUE_BYTES};
use quorate_raft::format;
use quorate_raft::sessions::SessionAnswer;
use serde::{Deserialize, Serialize};

/// The maximum size of the keys and values of a command, in bytes: the largest value and some margin.
pub const MAX_COMMAND_BYTES: usize = MAX_VALUE_BYTES + (256 << 10);
/// The maximum length of an entry's source, in bytes.
pub const MAX_SOURCE: usize = 256;

/// The precondition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// None.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists in this version.
    Version(u64),
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    /// Which key.
    pub key: Key,
    /// `None` deletes it.
    pub value: Option<Bytes>,
    /// Its precondition, evaluated before the batch.
    pub condition: Condition,
}

/// A command of a shard's state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Execute all of these writes, or none if a condition does not hold. Each key at most once.
    Write(Vec<Write>),
    /// Append an entry to the shard's log of entries.
    Append {
        /// Its source; may be empty.
        source: String,
        /// Its data.
        data: Bytes,
    },
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It was executed; its log index is the version of all keys that it wrote, or the entry's id.
    Done {
        /// Log index.
        index: u64,
        /// Term of the entry.
        term: u64,
    },
    /// Nothing was written: the condition of this write does not hold.
    ConditionFailed {
        /// Its index in the batch.
        write: u32,
        /// The key's version now; `None` if it is absent.
        current: Option<u64>,
    },
}

impl Command {
    /// The size of keys, values and data, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Command::Write(writes) => writes
                .iter()
                .map(|write| write.key.size() + write.value.as_ref().map_or(0, Bytes::len))
                .sum(),
            Command::Append { source, data } => source.len() + data.len(),
        }
    }

    /// Rejects a command that must not be logged.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] and [`Error::LimitExceeded`].
    pub fn validate(&self) -> Result<(), Error> {
        let (values, source): (Vec<&Bytes>, usize) = match self {
            Command::Write(writes) => {
                if writes.is_empty() {
                    return Err(Error::invalid("a batch without writes: give at least one"));
                }
                let mut keys: Vec<&Key> = writes.iter().map(|write| &write.key).collect();
                keys.sort_unstable();
                if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(Error::invalid(format!(
                        "key {} occurs twice in one batch: write each key once",
                        pair[0]
                    )));
                }
                (
                    writes.iter().filter_map(|write| write.value.as_ref()).collect(),
                    0,
                )
            }
            Command::Append { source, data } => (vec![data], source.len()),
        };
        let limit = |what: &str, size: usize, limit: usize, remedy: &str| {
            Err(Error::LimitExceeded {
                what: what.to_owned(),
                size: size as u64,
                limit: limit as u64,
                remedy: remedy.to_owned(),
            })
        };
        if source > MAX_SOURCE {
            return limit("the source's length in bytes", source, MAX_SOURCE, "shorten it");
        }
        if let Some(value) = values.iter().find(|value| value.len() > MAX_VALUE_BYTES) {
            let remedy = "split the value over several keys";
            return limit(
                "the value's length in bytes",
                value.len(),
                MAX_VALUE_BYTES,
                remedy,
            );
        }
        if self.size() > MAX_COMMAND_BYTES {
            let remedy = "split the batch; each part is atomic by itself";
            return limit(
                "the batch's length in bytes",
                self.size(),
                MAX_COMMAND_BYTES,
                remedy,
            );
        }
        Ok(())
    }
}

impl SessionAnswer for Outcome {
    fn to_bytes(&self) -> Bytes {
        format::encode_inner(self)
    }

    fn from_bytes(bytes: &Bytes) -> Self {
        format::decode_inner("outcome of a command", bytes)
            .unwrap_or_else(|error| panic!("a session's row: {error}"))
    }
}

#[cfg(test)]
#[path = "shard_command_tests.rs"]
mod tests;
