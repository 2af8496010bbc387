//! The writer of the journal: one transaction per batch.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use heed::RwTxn;
use quorate_core::store::{JournalOp, StateWrite, StreamId};

use super::coding::{self, EntryRange, JOURNAL_TAG};
use super::environment::{Positions, describe_error, is_map_full};
use super::reader::LmdbReader;
use super::usage::Full;
use super::{Options, Shared};
use crate::datadir::io_error;
use crate::error::{CommitError, OpenError};
use crate::frame::{self, HEADER_BYTES, Kind};
use crate::store::{Committer, NODE_STREAM, Reader, assert_contract, op_bytes};

/// Rows of a batch are split into entries of about this many bytes, since LMDB needs contiguous pages for an entry.
const ENTRY_BYTES: usize = 256 << 10;

/// The most entries that one commit trims.
const TRIM_ENTRIES: u64 = 64;

/// The half of the store that makes batches durable. Its write transactions begin and end within one call.
pub struct LmdbJournal {
    shared: Arc<Shared>,
    positions: Positions,
    fill: ZeroFill,
    /// Why the store failed.
    failed: Option<String>,
    scratch: Vec<u8>,
}

/// Why a transaction was aborted. Nothing was written if there was no room.
enum Abort {
    NoRoom,
    Failed(heed::Error),
}

impl From<heed::Error> for Abort {
    fn from(error: heed::Error) -> Self {
        if is_map_full(&error) {
            Abort::NoRoom
        } else {
            Abort::Failed(error)
        }
    }
}

impl LmdbJournal {
    pub(super) fn new(
        shared: Arc<Shared>,
        positions: Positions,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let fill = ZeroFill::open(&shared, options)?;
        Ok(LmdbJournal {
            shared,
            positions,
            fill,
            failed: None,
            scratch: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn fail(&mut self, failed: String) -> CommitError {
        self.failed = Some(failed.clone());
        CommitError::Fatal(failed)
    }

    /// Whether there is too little space for a growing batch, and for applying what is in memory.
    fn is_full(&self, batch: &[JournalOp]) -> Result<bool, String> {
        let writes = |op: &JournalOp| matches!(op, JournalOp::Write(_));
        if self.shared.state_full.get().is_some() && batch.iter().any(writes) {
            return Ok(true);
        }
        let bytes: usize = batch.iter().map(op_bytes).sum::<usize>() + self.unapplied_bytes();
        let scarce =
            self.shared.available_bytes()? < self.shared.reserve_bytes.saturating_add(2 * bytes as u64);
        if scarce {
            self.shared.commit_full.set(Full::FileSystem);
        }
        Ok(scarce)
    }

    /// The rows of the batch as framed entries of the node's stream, in order.
    fn node_entries(&self, batch: &[JournalOp]) -> Vec<(u64, Bytes)> {
        let mut entries = Vec::new();
        let mut position = self.positions.next;
        let mut entry = Vec::new();
        let mut seal = |entry: &mut Vec<u8>| {
            let mut framed = std::mem::take(entry);
            frame::seal(
                &mut framed,
                Kind::Writes,
                JOURNAL_TAG,
                &coding::entry_key(NODE_STREAM, position),
            );
            entries.push((position, Bytes::from(framed)));
            position += 1;
        };
        for write in rows(batch) {
            if entry.is_empty() {
                entry.extend_from_slice(&[0; HEADER_BYTES]);
            }
            coding::encode_write(&mut entry, write);
            if entry.len() >= ENTRY_BYTES {
                seal(&mut entry);
            }
        }
        if !entry.is_empty() {
            seal(&mut entry);
        }
        entries
    }

    fn write(&mut self, batch: &[JournalOp], entries: &[(u64, Bytes)]) -> Result<(), Abort> {
        let shared = Arc::clone(&self.shared);
        let mut txn = shared.journal.env.write_txn()?;
        let first = self.trim(&mut txn)?;
        for (position, framed) in entries {
            shared
                .journal
                .entries
                .put(&mut txn, &coding::entry_key(NODE_STREAM, *position), framed)?;
        }
        for op in batch {
            self.write_op(&mut txn, op)?;
        }
        txn.commit()?;
        self.positions.first = first;
        self.positions.next += entries.len() as u64;
        Ok(())
    }

    fn write_op(&mut self, txn: &mut RwTxn<'_>, op: &JournalOp) -> heed::Result<()> {
        match op {
            JournalOp::Write(_) => Ok(()),
            JournalOp::Append {
                stream,
                position,
                bytes,
            } => self.put(txn, &coding::entry_key(*stream, *position), Kind::Entry, bytes),
            JournalOp::Truncate { stream, from } => self.remove(txn, *stream, *from, u64::MAX),
            JournalOp::Trim { stream, through } => self.remove(txn, *stream, 0, *through),
            JournalOp::PutHard { key, value } => self.put(txn, &coding::hard_key(key), Kind::Hard, value),
            JournalOp::DeleteHard { key } => {
                let entries = &self.shared.journal.entries;
                entries.delete(txn, &coding::hard_key(key)).map(drop)
            }
        }
    }

    fn put(&mut self, txn: &mut RwTxn<'_>, key: &[u8], kind: Kind, content: &[u8]) -> heed::Result<()> {
        self.scratch.clear();
        frame::encode(&mut self.scratch, kind, JOURNAL_TAG, key, content);
        self.shared.journal.entries.put(txn, key, &self.scratch)
    }

    fn remove(&self, txn: &mut RwTxn<'_>, stream: StreamId, from: u64, through: u64) -> heed::Result<()> {
        let range = EntryRange::new(stream, from, through);
        self.shared.journal.entries.delete_range(txn, &range).map(drop)
    }

    /// Removes some entries that are durably applied; returns the first position left.
    fn trim(&self, txn: &mut RwTxn<'_>) -> heed::Result<u64> {
        let first = self.positions.first;
        let end = self
            .shared
            .trimmable
            .load(Ordering::Acquire)
            .saturating_add(1)
            .min(first + TRIM_ENTRIES);
        for position in first..end {
            self.shared
                .journal
                .entries
                .delete(txn, &coding::entry_key(NODE_STREAM, position))?;
        }
        Ok(end.max(first))
    }

    /// After a batch found no room: retries it if a transaction that only trims makes room.
    ///
    /// Pages that a transaction frees can be reused by the second one after it, hence two.
    fn write_after_trimming(&mut self, batch: &[JournalOp], entries: &[(u64, Bytes)]) -> Result<(), Abort> {
        let before = self.positions.first;
        self.write(&[], &[])?;
        if self.positions.first == before {
            return Err(Abort::NoRoom);
        }
        self.write(&[], &[])?;
        self.write(batch, entries)
    }
}

fn rows(batch: &[JournalOp]) -> impl Iterator<Item = &StateWrite> {
    batch
        .iter()
        .filter_map(|op| {
            if let JournalOp::Write(writes) = op {
                Some(writes)
            } else {
                None
            }
        })
        .flatten()
}

impl Committer for LmdbJournal {
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError> {
        if let Some(failed) = &self.failed {
            return Err(CommitError::Fatal(failed.clone()));
        }
        assert_contract(batch);
        let entries = self.node_entries(batch);
        let grows = !batch.iter().all(JournalOp::takes_away);
        if grows {
            match self.is_full(batch) {
                Ok(true) => return Err(CommitError::Full),
                Ok(false) => {}
                Err(failed) => return Err(self.fail(failed)),
            }
        }
        let written = self.write(batch, &entries).or_else(|abort| match abort {
            Abort::NoRoom => self.write_after_trimming(batch, &entries),
            failed => Err(failed),
        });
        match written {
            Ok(()) if grows => self.shared.commit_full.clear(),
            Ok(()) => {}
            Err(Abort::NoRoom) => {
                self.shared.commit_full.set(Full::Journal);
                return Err(CommitError::Full);
            }
            Err(Abort::Failed(error)) => {
                let failed = describe_error("commit to", self.shared.journal.path(), error);
                return Err(self.fail(failed));
            }
        }
        // The memtable holds slices of the entries, as after recovery, so that no row keeps a network buffer alive.
        let decoded = entries.iter().map(|(position, framed)| {
            let writes = coding::decode_writes(framed.slice(HEADER_BYTES..));
            (*position, writes.expect("an encoded entry decodes"))
        });
        let decoded: Vec<_> = decoded.collect();
        let mut memtable = self.shared.memtable_mut();
        for (position, writes) in decoded {
            memtable.insert(writes, position);
        }
        drop(memtable);
        self.fill.grow(&self.shared);
        Ok(())
    }

    fn unapplied_bytes(&self) -> usize {
        self.shared.memtable().bytes()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(LmdbReader::new(Arc::clone(&self.shared)))
    }
}

/// Writes zeros ahead of the pages in use, so that a sync writes pages and no file metadata.
struct ZeroFill {
    /// `None` if disabled, or after an error.
    file: Option<File>,
    /// The end of the written zeros.
    filled: u64,
    step: u64,
    limit: u64,
}

impl ZeroFill {
    fn open(shared: &Shared, options: &Options) -> Result<Self, OpenError> {
        let path = shared.journal.data_file();
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let filled = file.metadata().map_err(io_error("inspect", &path))?.len();
        let step = options.zero_fill;
        let mut fill = ZeroFill {
            file: (step > 0).then_some(file),
            filled,
            step,
            limit: options.journal_map_size as u64,
        };
        fill.grow(shared);
        Ok(fill)
    }

    /// Writes more zeros if the pages in use are close to the end. Called between transactions, by the only thread that
    /// extends the file. A failure is ignored: the zeros only save time.
    fn grow(&mut self, shared: &Shared) {
        static CHUNK: [u8; 64 << 10] = [0; 64 << 10];
        let Some(file) = &self.file else { return };
        let used = shared.journal.used_bytes();
        if used + self.step / 4 <= self.filled {
            return;
        }
        let mut at = used.max(self.filled);
        let end = (at + self.step).min(self.limit);
        while at < end {
            let bytes = CHUNK.len().min((end - at) as usize);
            if file.write_all_at(&CHUNK[..bytes], at).is_err() {
                self.file = None;
                return;
            }
            at += bytes as u64;
        }
        self.filled = end;
    }
}
