//! Where a group with a small state machine keeps the bytes of its snapshots: in memory, and in a stream of
//! the journal.
//!
//! The chunks of a snapshot stand one after the other in the stream. They become durable as bulk, in slices
//! between votes and appends. Nothing refers to them until the snapshot's record does (its handle is the
//! position of the first chunk); until then a crash leaves the older snapshot in force, and the next one to
//! be written overwrites what was left.

use bytes::Bytes;
use quorate_core::store::{JournalOp, Priority, StreamId};
use xxhash_rust::xxh3::xxh3_64;

use crate::snapshot::SnapshotMeta;
use crate::types::{GroupId, LogPosition};

/// How large the pieces are in which a snapshot is stored.
const PIECE: usize = 64 << 10;

/// The checksum over a whole snapshot.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// What a snapshot that is being written is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// It was made here, of everything up to there.
    Taken(LogPosition),
    /// It came from the leader.
    Received(SnapshotMeta),
}

/// A snapshot that the disk has not answered for.
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
    /// The one in force.
    current: Option<(LogPosition, Bytes)>,
    writing: Vec<Writing>,
    /// Of the one that is being received.
    incoming: Vec<u8>,
    /// Behind the last position that was used.
    next: u64,
    last_token: u64,
}

impl SnapshotStore {
    /// An empty snapshot store, or one with the snapshot that was recovered from the stream, which ends before `next`.
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

    /// Begins to write a snapshot: token, priority and operations of a persist.
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
        // Odd: the even ones are the server's.
        self.last_token += 2;
        self.writing.push(Writing {
            token: self.last_token,
            purpose,
            bytes,
            handle,
        });
        (self.last_token, Priority::Bulk, ops)
    }

    /// Whether a token is one of this snapshot store's.
    pub(super) fn owns(token: u64) -> bool {
        token % 2 == 1
    }

    /// The disk has answered. `None`: it was only asked to forget something.
    pub(super) fn answered(&mut self, token: u64) -> Option<Writing> {
        let place = self.writing.iter().position(|writing| writing.token == token)?;
        Some(self.writing.remove(place))
    }

    /// A snapshot is in force from now on.
    pub(super) fn set_current(&mut self, position: LogPosition, bytes: Bytes) {
        self.current = Some((position, bytes));
    }

    /// Asks the disk to forget everything before a handle.
    pub(super) fn forget_before(&mut self, handle: u64) -> Option<(u64, Priority, Vec<JournalOp>)> {
        let through = handle.checked_sub(1)?;
        self.last_token += 2;
        let trim = JournalOp::Trim {
            stream: self.stream,
            through,
        };
        Some((self.last_token, Priority::Bulk, vec![trim]))
    }

    /// A part of the snapshot in force, if it is that one.
    pub(super) fn chunk(&self, position: LogPosition, offset: u64, length: u32) -> Option<Bytes> {
        let (current, bytes) = self.current.as_ref()?;
        let offset = usize::try_from(offset).ok()?;
        let end = bytes.len().min(offset + length as usize);
        (*current == position && offset < end).then(|| bytes.slice(offset..end))
    }

    /// Puts aside a part of a snapshot that is being received.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) {
        if offset == 0 {
            self.incoming.clear();
        }
        assert_eq!(self.incoming.len() as u64, offset, "chunks come in order");
        self.incoming.extend_from_slice(bytes);
    }

    /// The whole that was received, if its size and sum are right.
    pub(super) fn complete(&mut self, meta: &SnapshotMeta) -> Option<Bytes> {
        let bytes = std::mem::take(&mut self.incoming);
        (bytes.len() as u64 == meta.size && checksum(&bytes) == meta.checksum).then(|| bytes.into())
    }
}
