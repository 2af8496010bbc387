//! Starting a group with what its disk has: hard state, snapshot record, snapshot, log, read one after the other.

use bytes::Bytes;

use crate::raft::entry::Entry;
use crate::raft::format::{self, FormatError};
use crate::raft::server::Recovered;
use crate::raft::snapshot::Kept;
use crate::raft::types::{GroupId, HardState};
use crate::raft::vault;
use crate::store::StreamId;

/// About how many bytes are read at once.
const PAGE_BYTES: u32 = 1 << 20;

/// Something to read from the journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The hard state of this name.
    Hard(Bytes),
    /// The entries of a stream from a position on, about so many bytes of them, at least one if there is one.
    Stream {
        /// Which.
        stream: StreamId,
        /// The first position.
        from: u64,
        /// How much.
        limit_bytes: u32,
    },
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// The hard state, if there is one.
    Hard(Option<Bytes>),
    /// Positions and entries, in order.
    Stream(Vec<(u64, Bytes)>),
}

/// How far recovery is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Hard,
    Record,
    Snapshot,
    Log,
}

/// A group that is being recovered. Ask for [`source`](Self::source), give the answer to [`read`](Self::read), until it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    group: GroupId,
    step: Step,
    recovered: Recovered,
    snapshot: Vec<u8>,
    next_chunk: u64,
    next_entry: u64,
}

/// What was recovered.
pub(super) struct Done {
    pub(super) recovered: Recovered,
    /// The bytes of the snapshot that its record names.
    pub(super) snapshot: Bytes,
    /// The position behind its last chunk.
    pub(super) next_chunk: u64,
}

impl Recovery {
    pub(super) fn new(group: GroupId) -> Self {
        Recovery {
            group,
            step: Step::Hard,
            recovered: Recovered::default(),
            snapshot: Vec::new(),
            next_chunk: 0,
            next_entry: 1,
        }
    }

    /// What to read next.
    pub(super) fn source(&self) -> Source {
        let stream = |stream, from| Source::Stream {
            stream,
            from,
            limit_bytes: PAGE_BYTES,
        };
        match self.step {
            Step::Hard => Source::Hard(self.group.hard_state_key()),
            Step::Record => Source::Hard(self.group.snapshot_key()),
            Step::Snapshot => stream(self.group.snapshot_stream(), self.next_chunk),
            Step::Log => stream(self.group.log_stream(), self.next_entry),
        }
    }

    /// Takes what was read; gives everything when that was the last.
    ///
    /// # Errors
    /// [`FormatError`] if it is not what a group writes: it must not start then, since it may have promised what it
    /// cannot read any more.
    pub(super) fn read(&mut self, stored: Stored) -> Result<Option<Done>, FormatError> {
        match (&self.step, stored) {
            (Step::Hard, Stored::Hard(value)) => {
                let hard = value.map(|bytes| format::decode::<HardState>("hard state", &bytes));
                self.recovered.hard = hard.transpose()?.unwrap_or_default();
                self.step = Step::Record;
            }
            (Step::Record, Stored::Hard(value)) => {
                let kept = value.map(|bytes| format::decode::<Kept>("snapshot record", &bytes));
                self.recovered.kept = kept.transpose()?;
                match &self.recovered.kept {
                    None => self.step = Step::Log,
                    Some(kept) => {
                        self.next_chunk = kept.handle;
                        self.next_entry = kept.base.index.next().0;
                        self.step = Step::Snapshot;
                    }
                }
            }
            (Step::Snapshot, Stored::Stream(chunks)) => self.chunks(chunks)?,
            (Step::Log, Stored::Stream(entries)) if entries.is_empty() => {
                return Ok(Some(Done {
                    recovered: std::mem::take(&mut self.recovered),
                    snapshot: std::mem::take(&mut self.snapshot).into(),
                    next_chunk: self.next_chunk,
                }));
            }
            (Step::Log, Stored::Stream(entries)) => {
                for (position, bytes) in entries {
                    let entry: Entry = format::decode("log entry", &bytes)?;
                    if entry.index.0 != position {
                        let reason = format!("entry {} stands at position {position}", entry.position());
                        return Err(FormatError::malformed("log entry", reason));
                    }
                    self.next_entry = position + 1;
                    self.recovered.entries.push(entry);
                }
            }
            (step, stored) => panic!("asked for {step:?}, answered with {stored:?}"),
        }
        Ok(None)
    }

    fn chunks(&mut self, chunks: Vec<(u64, Bytes)>) -> Result<(), FormatError> {
        let kept = self.recovered.kept.as_ref().expect("its record was read before");
        let wrong =
            |reason: &str| FormatError::malformed("snapshot", format!("{} is {reason}", kept.meta.position));
        if chunks.is_empty() {
            return Err(wrong("shorter than its record says"));
        }
        for (position, bytes) in chunks {
            if self.snapshot.len() as u64 >= kept.meta.size {
                // Of one that was begun later and has no record.
                break;
            }
            if position != self.next_chunk {
                return Err(wrong("missing a chunk"));
            }
            self.next_chunk = position + 1;
            self.snapshot.extend_from_slice(&bytes);
        }
        if self.snapshot.len() as u64 >= kept.meta.size {
            if vault::checksum(&self.snapshot) != kept.meta.checksum {
                return Err(wrong("not what was written"));
            }
            self.step = Step::Log;
        }
        Ok(())
    }
}
