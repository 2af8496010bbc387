//! Validation of messages: a peer's numbers are checked on receipt.
//!
//! A message may come from a faulty server, from another version of the program, or, if the cluster has no
//! secret, from any local process. The protocol trusts what a message *says*, as Raft must; but no message
//! may make a server overflow its numbers, accept an impossible claim, or violate an invariant of its own
//! state. Such a message is dropped as a whole, and the timeline names its sender.
//!
//! * **Terms.** A later term is adopted, and an election adds one to it. So one message with the term 2^64-1
//!   would end all elections for good, after restarts too: a term more than [`MAX_TERM_STEP`] above the own
//!   one is rejected. (A group that holds an election every millisecond needs 49 days for so many terms.) If
//!   terms are exhausted all the same, no more elections are started.
//! * **Entries** are contiguous and follow `previous`, and no term is later than the message's.
//! * **Answers** to a leader concern what it has: its log ends at its last entry.
//! * **Snapshots** end at their stated size.
//! * **A leader** receives no messages from another leader of its term: there is one (election safety).

use std::time::Duration;

use quorate_core::ids::NodeId;

use crate::action::Notice;
use crate::entry::Entry;
use crate::message::{Body, Message};
use crate::server::{Raft, State, Turn};
use crate::types::{LogIndex, LogPosition, Term};

/// The maximum step from the own term to a message's.
pub const MAX_TERM_STEP: u64 = 1 << 32;

/// At most one rejected message per interval is reported; a faulty sender may send many.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Why a message is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Implausible {
    /// A term that elections do not reach.
    #[error("its term {term} is more than 2^32 above {own}")]
    Term {
        /// The message's term.
        term: Term,
        /// This server's term.
        own: Term,
    },
    /// An index that no log last_index.
    #[error("it names entry {0}, which no log has")]
    Index(LogIndex),
    /// An entry that does not follow the previous one.
    #[error("its entry {entry} does not follow {previous}, in {term}")]
    Entry {
        /// The entry.
        entry: LogPosition,
        /// The previous entry.
        previous: LogPosition,
        /// The message's term.
        term: Term,
    },
    /// An answer about entries that this leader never had.
    #[error("it answers about entry {claimed}, but the log ends at {last}")]
    Answer {
        /// The claimed index.
        claimed: LogIndex,
        /// The leader's last index.
        last: LogIndex,
    },
    /// An answer to a heartbeat round that has not begun.
    #[error("it answers heartbeat round {claimed}, but the last one is {last}")]
    Round {
        /// The claimed round.
        claimed: u64,
        /// The last round.
        last: u64,
    },
    /// Another server claims to lead in the term in which this server was elected.
    #[error("it claims to lead in {0}, in which this server leads")]
    Rival(Term),
    /// A chunk outside of its snapshot, or an empty snapshot.
    #[error("it has {bytes} bytes at {offset} of a snapshot of {size}")]
    Chunk {
        /// The number of bytes.
        bytes: usize,
        /// Their offset.
        offset: u64,
        /// The size of the snapshot.
        size: u64,
    },
}

/// Whether entries are contiguous, and none is of a later term than the leader's.
fn continues(previous: LogPosition, entries: &[Entry], term: Term) -> Result<(), Implausible> {
    if previous.index > LogIndex::LAST {
        return Err(Implausible::Index(previous.index));
    }
    let mut before = previous;
    for entry in entries.iter().map(Entry::position) {
        let follows = entry.index == before.index.next() && entry.term >= before.term;
        if !follows || entry.term > term || entry.term == Term(0) {
            return Err(Implausible::Entry {
                entry,
                previous: before,
                term,
            });
        }
        before = entry;
    }
    Ok(())
}

impl Raft {
    /// Whether a server of this group can have sent this.
    pub(super) fn validate(&self, message: &Message) -> Result<(), Implausible> {
        let Message { term, body } = message;
        let (term, own) = (*term, self.hard.term);
        if term.0.saturating_sub(own.0) > MAX_TERM_STEP {
            return Err(Implausible::Term { term, own });
        }
        if self.is_leader() && term == own && body.is_leaders() {
            return Err(Implausible::Rival(term));
        }
        match body {
            Body::Append {
                previous, entries, ..
            } => continues(*previous, entries, term),
            Body::Snapshot { meta, offset, bytes } => {
                let end = offset.checked_add(bytes.len() as u64);
                if meta.position.index > LogIndex::LAST || meta.position.term > term {
                    Err(Implausible::Index(meta.position.index))
                } else if bytes.is_empty() || end.is_none_or(|end| end > meta.size) {
                    Err(Implausible::Chunk {
                        bytes: bytes.len(),
                        offset: *offset,
                        size: meta.size,
                    })
                } else {
                    Ok(())
                }
            }
            Body::Accepted { through } => self.check_index(term, *through),
            Body::Rejected { previous, .. } => self.check_index(term, *previous),
            Body::HeartbeatAck {
                round,
                received,
                durable,
            } => {
                self.check_index(term, *received)?;
                self.check_index(term, *durable)?;
                self.check_round(term, *round)
            }
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Heartbeat { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. }
            | Body::SnapshotReceived { .. }
            | Body::Outdated
            | Body::Probe { .. }
            | Body::ProbeAnswer { .. } => Ok(()),
        }
    }

    /// Within a term a leader's log only grows, and followers have no more of it than it has sent.
    fn check_index(&self, term: Term, claimed: LogIndex) -> Result<(), Implausible> {
        let last = self.log.last().index;
        match self.is_leader() && term == self.hard.term && claimed > last {
            true => Err(Implausible::Answer { claimed, last }),
            false => Ok(()),
        }
    }

    fn check_round(&self, term: Term, claimed: u64) -> Result<(), Implausible> {
        let State::Leader(leader) = &self.state else {
            return Ok(());
        };
        let last = leader.reads.round();
        match term == self.hard.term && claimed > last {
            true => Err(Implausible::Round { claimed, last }),
            false => Ok(()),
        }
    }

    /// Drops a message.
    pub(super) fn reject(&mut self, from: NodeId, reason: Implausible, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        if self.rejected_at.is_none_or(|at| now.since(at) >= REPORT_EVERY) {
            self.rejected_at = Some(now);
            turn.notice(Notice::MessageRejected { from, reason });
        }
    }
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
