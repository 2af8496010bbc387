//! Log entries.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::types::{LogIndex, LogPosition, Term};

/// One entry of the replicated log. Once committed, it is the same on every server, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that created it.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
    /// What it says.
    pub kind: EntryKind,
}

/// What an entry says. The order of the variants is part of the disk format.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// Nothing. Every leader begins its term with one: an entry of its own that it may commit by counting,
    /// and with it everything before (section 5.4.2).
    Empty,
    /// A command for the state machine. The protocol does not look into it.
    Command(Bytes),
    /// The members from here on. Counts as soon as it is in a log, committed or not (section 6).
    Configuration(Configuration),
}

/// Roughly what an entry costs beside its command, in memory and on the wire.
const OVERHEAD: usize = 24;

impl Entry {
    /// Its full name.
    pub fn position(&self) -> LogPosition {
        LogPosition {
            term: self.term,
            index: self.index,
        }
    }

    /// About how many bytes it takes in memory and on the wire.
    pub fn size(&self) -> usize {
        OVERHEAD
            + match &self.kind {
                EntryKind::Empty => 0,
                EntryKind::Command(command) => command.len(),
                EntryKind::Configuration(configuration) => configuration.members().count() * 2,
            }
    }
}
