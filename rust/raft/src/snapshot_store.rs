//! Storage of a small state machine's snapshots: in memory, and in a stream of the journal.
//!
//! The chunks of a snapshot are contiguous in the stream. They are written with bulk priority, in slices
//! between votes and appends. Nothing refers to them until the snapshot's record does (its handle is the
//! position of the first chunk); until then a crash leaves the older snapshot current, and the next one
//! overwrites the remains.

use bytes::Bytes;
use quorate_core::store::{JournalOp, Priority, StreamId};
use xxhash_rust::xxh3::xxh3_64;

use crate::snapshot::SnapshotMeta;
use crate::types::{GroupId, LogPosition};

/// The size of a stored piece of a snapshot.
const PIECE: usize = 64 << 10;

/// The checksum of a whole snapshot.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The purpose of a snapshot that is being written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Taken here, of everything up to this position.
    Taken(LogPosition),
    /// Received from the leader.
    Received(SnapshotMeta),
}

/// A snapshot whose write is pending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Writing {
    token: u64,
    pub(super) purpose: Purpose,
    pub(super) bytes: Bytes,
    pub(super) handle: u64,
}

/// The snapshots of one group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SnapshotStore {
    stream: StreamId,
    /// The current snapshot.
    current: Option<(LogPosition, Bytes)>,
    writing: Vec<Writing>,
    /// The bytes of the snapshot that is being received.
    incoming: Vec<u8>,
    /// The first unused position.
    next: u64,
    last_token: u64,
}

impl SnapshotStore {
    /// An empty snapshot store, or one with the snapshot that was recovered from the stream, which ends
    /// before `next`.
    pub(super) fn new(group: GroupId, current: Option<(LogPosition, Bytes)>, next: u64) -> Self {
        SnapshotStore {
            stream: group.snapshot_stream(),
            current,
            writing: Vec::new(),
            incoming: Vec::new(),
            next,
            last_token: 1,
        }
    }

    /// Starts writing a snapshot: token, priority and operations of a persist.
    pub(super) fn write(&mut self, purpose: Purpose, bytes: Bytes) -> (u64, Priority, Vec<JournalOp>) {
        let (stream, handle) = (self.stream, self.next);
        let mut ops = vec![JournalOp::Truncate { stream, from: handle }];
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            ops.push(JournalOp::Append {
                stream,
                position: self.next,
                bytes: rest.split_to(PIECE.min(rest.len())),
            });
            self.next += 1;
        }
        // Odd: the server's tokens are even.
        self.last_token += 2;
        self.writing.push(Writing {
            token: self.last_token,
            purpose,
            bytes,
            handle,
        });
        (self.last_token, Priority::Bulk, ops)
    }

    /// Whether a token belongs to this snapshot store.
    pub(super) fn owns(token: u64) -> bool {
        token % 2 == 1
    }

    /// A write has completed. `None` for a deletion.
    pub(super) fn answered(&mut self, token: u64) -> Option<Writing> {
        let place = self.writing.iter().position(|writing| writing.token == token)?;
        Some(self.writing.remove(place))
    }

    /// Makes a snapshot the current one.
    pub(super) fn set_current(&mut self, position: LogPosition, bytes: Bytes) {
        self.current = Some((position, bytes));
    }

    /// Deletes everything before a handle.
    pub(super) fn forget_before(&mut self, handle: u64) -> Option<(u64, Priority, Vec<JournalOp>)> {
        let through = handle.checked_sub(1)?;
        self.last_token += 2;
        let trim = JournalOp::Trim {
            stream: self.stream,
            through,
        };
        Some((self.last_token, Priority::Bulk, vec![trim]))
    }

    /// A chunk of the current snapshot, if that is the one at `position`.
    pub(super) fn chunk(&self, position: LogPosition, offset: u64, length: u32) -> Option<Bytes> {
        let (current, bytes) = self.current.as_ref()?;
        let offset = usize::try_from(offset).ok()?;
        let end = bytes.len().min(offset + length as usize);
        (*current == position && offset < end).then(|| bytes.slice(offset..end))
    }

    /// Stores a chunk of a snapshot that is being received.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) {
        if offset == 0 {
            self.incoming.clear();
        }
        assert_eq!(self.incoming.len() as u64, offset, "chunks arrive in order");
        self.incoming.extend_from_slice(bytes);
    }

    /// The received snapshot, if its size and checksum are right.
    pub(super) fn complete(&mut self, meta: &SnapshotMeta) -> Option<Bytes> {
        let bytes = std::mem::take(&mut self.incoming);
        (bytes.len() as u64 == meta.size && checksum(&bytes) == meta.checksum).then(|| bytes.into())
    }
}
