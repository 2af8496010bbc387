//! What a message may claim: numbers of a peer are checked where they enter.
//!
//! A message comes from a server that may be broken, of another program, or, where the cluster has no secret, from any
//! local process. The protocol trusts what a message *says*, as Raft must; but no message may bring a server to count
//! beyond its numbers, to claim what nobody can have, or to break an invariant of its own state. One that would is
//! rejected as a whole: nothing is done about it, and the timeline names its sender.
//!
//! * **Terms.** A later term is adopted, and an election adds one to it. So one message with the term 2^64-1 would end
//!   all elections for good, after restarts too: a term more than [`MAX_TERM_STEP`] above the own one is rejected. (A
//!   group that holds an election every millisecond needs 49 days for so many terms.) If the numbers run out all the same,
//!   no election is called any more.
//! * **Entries** follow each other and what they stand behind, and no term is later than the message's.
//! * **Answers** to a leader are about what it has: its log ends at its last entry.
//! * **Snapshots** end where they say.
//! * **A leader** hears from no other leader of its term: there is one (election safety).

use std::time::Duration;

use quorate_core::ids::NodeId;

use crate::action::Notice;
use crate::entry::Entry;
use crate::message::{Body, Message};
use crate::server::{Raft, State, Turn};
use crate::types::{LogIndex, LogPosition, Term};

/// How far the term of a message may be above the own one.
pub const MAX_TERM_STEP: u64 = 1 << 32;

/// One rejected message in so long is reported; who can send one can send many.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Why a message is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Implausible {
    /// No elections lead there.
    #[error("its term {term} is more than 2^32 above {own}")]
    Term {
        /// The message's.
        term: Term,
        /// This server's.
        own: Term,
    },
    /// A place that no log reaches.
    #[error("it names entry {0}, which no log has")]
    Index(LogIndex),
    /// An entry that does not follow the one before.
    #[error("it has entry {entry} behind {previous}, in {term}")]
    Entry {
        /// The entry.
        entry: LogPosition,
        /// The one before.
        previous: LogPosition,
        /// The message's term.
        term: Term,
    },
    /// An answer about entries that this leader never had.
    #[error("it answers about entry {claimed}, but the log ends at {last}")]
    Answer {
        /// What it claims to have.
        claimed: LogIndex,
        /// What there is.
        last: LogIndex,
    },
    /// An answer to a round of heartbeats that has not begun.
    #[error("it answers round {claimed} of {last}")]
    Round {
        /// What it claims to answer.
        claimed: u64,
        /// What there was.
        last: u64,
    },
    /// Somebody else claims to lead in the term in which this server was elected.
    #[error("it claims to lead in {0}, in which this server leads")]
    Rival(Term),
    /// A chunk that is no part of its snapshot, or a snapshot of nothing.
    #[error("it has {bytes} bytes at {offset} of a snapshot of {size}")]
    Chunk {
        /// How many it has.
        bytes: usize,
        /// Where.
        offset: u64,
        /// Of how many.
        size: u64,
    },
}

/// Whether entries stand one behind the other, and none is of a later term than the leader's.
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
            Body::Accepted { through } => self.has_had(term, *through),
            Body::Rejected { previous, .. } => self.has_had(term, *previous),
            Body::HeartbeatAck {
                round,
                received,
                durable,
            } => {
                self.has_had(term, *received)?;
                self.has_had(term, *durable)?;
                self.has_begun(term, *round)
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
            | Body::Fresh { .. } => Ok(()),
        }
    }

    /// Within a term a leader's log only grows, and followers have no more of it than it has sent.
    fn has_had(&self, term: Term, claimed: LogIndex) -> Result<(), Implausible> {
        let last = self.log.last().index;
        match self.is_leader() && term == self.hard.term && claimed > last {
            true => Err(Implausible::Answer { claimed, last }),
            false => Ok(()),
        }
    }

    fn has_begun(&self, term: Term, claimed: u64) -> Result<(), Implausible> {
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
