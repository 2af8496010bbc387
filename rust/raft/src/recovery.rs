//! Recovers a group from its disk: hard state, start of the log (`LogStart`), snapshot and log, in this
//! order.

use bytes::Bytes;
use quorate_core::store::{Query, Rows, StreamId};

use crate::entry::Entry;
use crate::format::{self, FormatError};
use crate::server::Recovered;
use crate::snapshot::{LogStart, SnapshotRef};
use crate::snapshot_store;
use crate::types::{GroupId, HardState};

/// Approximate number of bytes per read.
const PAGE_BYTES: u32 = 1 << 20;

/// The next read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Hard,
    LogStart,
    Snapshot,
    Log,
}

/// A group that is being recovered. Perform [`query`](Self::query) and pass the result to
/// [`read`](Self::read), until that returns the recovered state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    group: GroupId,
    step: Step,
    recovered: Recovered,
    snapshot_ref: Option<SnapshotRef>,
    snapshot: Vec<u8>,
    next_chunk: u64,
    next_entry: u64,
    /// Whether the bytes of snapshots are in the journal.
    in_journal: bool,
}

/// The recovered state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Done {
    /// The state to start the server with.
    pub recovered: Recovered,
    /// The snapshot of the initial state.
    pub snapshot_ref: Option<SnapshotRef>,
    /// The snapshot's bytes.
    pub snapshot: Bytes,
    /// The position after its last chunk.
    pub next_chunk: u64,
}

impl Recovery {
    /// For a group whose snapshots are chunks in its second stream.
    pub fn new(group: GroupId) -> Self {
        Recovery {
            group,
            step: Step::Hard,
            recovered: Recovered::default(),
            snapshot_ref: None,
            snapshot: Vec::new(),
            next_chunk: 0,
            next_entry: 1,
            in_journal: true,
        }
    }

    /// For a host that stores its snapshots elsewhere: their bytes are not read.
    pub fn without_snapshot(group: GroupId) -> Self {
        Recovery {
            in_journal: false,
            ..Recovery::new(group)
        }
    }

    /// The next read.
    pub fn query(&self) -> Query {
        let log = |stream: StreamId, from| Query::Log {
            stream,
            from,
            limit_rows: u32::MAX,
            limit_bytes: PAGE_BYTES,
        };
        match self.step {
            Step::Hard => Query::Hard {
                key: self.group.hard_state_key(),
            },
            Step::LogStart => Query::Hard {
                key: self.group.log_start_key(),
            },
            Step::Snapshot => log(self.group.snapshot_stream(), self.next_chunk),
            Step::Log => log(self.group.log_stream(), self.next_entry),
        }
    }

    /// Takes the rows of the last query; returns the recovered state after the last one.
    ///
    /// # Errors
    /// [`FormatError`] if a group did not write them: the server must not start, since it may have forgotten
    /// promises.
    pub fn read(&mut self, rows: Rows) -> Result<Option<Done>, FormatError> {
        let rows = rows.rows;
        match self.step {
            Step::Hard => {
                let hard = rows
                    .first()
                    .map(|(_, value)| format::decode::<HardState>("hard state", value));
                self.recovered.hard = hard.transpose()?.unwrap_or_default();
                self.step = Step::LogStart;
            }
            Step::LogStart => {
                let log_start = rows
                    .first()
                    .map(|(_, value)| format::decode::<LogStart>("log record", value));
                self.recovered.log_start = log_start.transpose()?;
                self.step = Step::Log;
                if let Some(log_start) = &self.recovered.log_start {
                    self.next_entry = log_start.base.index.next().0;
                    if let Some(snapshot_ref) = &log_start.snapshot {
                        self.next_chunk = snapshot_ref.handle;
                        self.snapshot_ref = Some(snapshot_ref.clone());
                        if self.in_journal {
                            self.step = Step::Snapshot;
                        }
                    }
                }
            }
            Step::Snapshot => self.chunks(rows)?,
            Step::Log if rows.is_empty() => {
                return Ok(Some(Done {
                    recovered: std::mem::take(&mut self.recovered),
                    snapshot_ref: self.snapshot_ref.take(),
                    snapshot: std::mem::take(&mut self.snapshot).into(),
                    next_chunk: self.next_chunk,
                }));
            }
            Step::Log => {
                for (key, bytes) in rows {
                    let position = position(&key)?;
                    let entry: Entry = format::decode("log entry", &bytes)?;
                    if entry.index.0 != position {
                        let reason = format!("entry {} is at position {position}", entry.position());
                        return Err(FormatError::malformed("log entry", reason));
                    }
                    self.next_entry = position + 1;
                    self.recovered.entries.push(entry);
                }
            }
        }
        Ok(None)
    }

    fn chunks(&mut self, chunks: Vec<(Bytes, Bytes)>) -> Result<(), FormatError> {
        let snapshot_ref = self
            .snapshot_ref
            .as_ref()
            .expect("its record is read before its chunks");
        let wrong = |reason: &str| {
            FormatError::malformed("snapshot", format!("{} is {reason}", snapshot_ref.meta.position))
        };
        if chunks.is_empty() {
            return Err(wrong("shorter than its record says"));
        }
        for (key, bytes) in chunks {
            let position = position(&key)?;
            if self.snapshot.len() as u64 >= snapshot_ref.meta.size {
                // A later snapshot, without a record.
                break;
            }
            if position != self.next_chunk {
                return Err(wrong("missing a chunk"));
            }
            self.next_chunk = position + 1;
            self.snapshot.extend_from_slice(&bytes);
        }
        if self.snapshot.len() as u64 >= snapshot_ref.meta.size {
            if snapshot_store::checksum(&self.snapshot) != snapshot_ref.meta.checksum {
                return Err(wrong("not what was written"));
            }
            self.step = Step::Log;
        }
        Ok(())
    }
}

/// The position that is the key of a row of a stream.
fn position(key: &Bytes) -> Result<u64, FormatError> {
    let key = <[u8; 8]>::try_from(&key[..]);
    key.map(u64::from_be_bytes)
        .map_err(|error| FormatError::malformed("position", error))
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
