//! Raft's numbers. Each is a newtype, so that a term cannot be mistaken for an index.

use std::fmt;

use bytes::Bytes;
use quorate_core::ids::NodeId;
use quorate_core::store::StreamId;
use serde::{Deserialize, Serialize};

/// A term: at most one leader's. Raft's logical clock; it only rises.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// The next term; `None` after the highest number, which elections alone never reach.
    pub fn next(self) -> Option<Term> {
        self.0.checked_add(1).map(Term)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An index in the log. The first entry has index 1; 0 is the index before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The highest index that a message may name. A log that begins there can still grow by more entries than
    /// any group writes, so indexes can be incremented without overflow checks.
    pub const LAST: LogIndex = LogIndex(1 << 62);

    /// The next index.
    ///
    /// # Panics
    /// After the highest number, which no log last_index: [`LogIndex::LAST`] bounds where it may begin.
    pub fn next(self) -> LogIndex {
        self.plus(1)
    }

    /// The index `count` after this one.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub fn plus(self, count: usize) -> LogIndex {
        let place = self.0.checked_add(count as u64);
        LogIndex(place.expect("log indexes do not overflow"))
    }

    /// The previous index; 0 for 0.
    pub fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The position of an entry. By the Log Matching Property it identifies the whole log up to there.
///
/// The order is that of section 5.4.1: of two logs, the one whose last entry has the later term is more up to
/// date, and with equal terms the longer one. The order of the fields makes the derived order this one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its index.
    pub index: LogIndex,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Debug for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A Raft group, numbered from 1 and never reused: the control plane's, or one shard of a keyspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The journal stream of this group's log; positions are log indexes.
    pub fn log_stream(self) -> StreamId {
        self.stream(0)
    }

    /// The journal stream of this group's snapshot chunks.
    pub fn snapshot_stream(self) -> StreamId {
        self.stream(1)
    }

    /// The key of the group's hard state: term and vote.
    pub fn hard_state_key(self) -> Bytes {
        format!("raft/{}/hard", self.0).into()
    }

    /// The key of the record of the log's start and the snapshot that covers what was before.
    pub fn log_start_key(self) -> Bytes {
        format!("raft/{}/beginning", self.0).into()
    }

    fn stream(self, which: u64) -> StreamId {
        assert!(
            self.0 > 0,
            "groups are numbered from 1: streams 0 and 1 are reserved"
        );
        StreamId(u64::from(self.0) * 2 + which)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a server must never forget: the latest term it has seen and its vote in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that it has seen.
    pub term: Term,
    /// The node that has its one vote in that term.
    pub vote: Option<NodeId>,
}
