//! Log entries.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::types::{LogIndex, LogPosition, Term};

/// An entry of the replicated log. Once committed, it is the same on every server, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that created it.
    pub term: Term,
    /// Its index in the log.
    pub index: LogIndex,
    /// Its content.
    pub kind: EntryKind,
}

/// The content of an entry. The order of the variants is part of the disk format.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// No content. Every leader begins its term with one: an entry of its own that it can commit by counting,
    /// and with it everything before (section 5.4.2).
    Empty,
    /// A command for the state machine, opaque to the protocol.
    Command(Bytes),
    /// The members from this entry on. In effect as soon as it is in a log, committed or not (section 6).
    Configuration(Configuration),
}

/// Approximate size of an entry without its command, in memory and on the wire.
const OVERHEAD: usize = 24;

impl Entry {
    /// Its term and index.
    pub fn position(&self) -> LogPosition {
        LogPosition {
            term: self.term,
            index: self.index,
        }
    }

    /// Approximate size in bytes, in memory and on the wire.
    pub fn size(&self) -> usize {
        OVERHEAD
            + match &self.kind {
                EntryKind::Empty => 0,
                EntryKind::Command(command) => command.len(),
                EntryKind::Configuration(configuration) => configuration.members().count() * 2,
            }
    }
}
