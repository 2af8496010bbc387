//! Deliberate mistakes that tests must catch: tests of the tests.
//!
//! Roles call [`Bugs::has`] at the place of a mistake. Any code can create an empty set; only code with a
//! `quorate_permit::Permit` can create others, and Cargo decides which crates have it: the testing crate and
//! the simulator.

use quorate_permit::Permit;

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A write is sent to the other replicas without the key's other siblings (but with the whole vector).
    SiblingsDropped,
    /// A replica keeps its id after a crash, and restarts its counter of dots from one.
    CounterRestarts,
    /// A replica keeps its id after a crash, with a counter above all that it may have issued.
    IdKeptAfterCrash,
    /// A replica acknowledges before the write is durable.
    AckBeforeDurable,
    /// A coordinator counts replicas that are alive instead of those that acknowledged.
    WriteQuorumByLiveness,
    /// The data of dropped keyspaces is not removed.
    GcSkipped,
    /// A duplicated request of another node is executed twice.
    DuplicatesAccepted,
    /// A forwarder takes an unanswered attempt for a rejected one.
    DoubtForgotten,
    /// A vote is sent before it is durable: after a crash the voter can vote again in the same term.
    VoteNotDurable,
    /// An entry of an earlier term counts as committed once a majority has it (Figure 8).
    OldTermCommit,
    /// A server without a leader starts a new term at once: a server that reconnects deposes a healthy
    /// leader.
    NoPreVote,
    /// A leader answers reads without confirming that it still leads.
    StaleReadIndex,
    /// Appends are acknowledged, and counted by the leader itself, before they are durable.
    RaftAckBeforeDurable,
    /// Snapshots lack the client sessions: after one, a retry is executed again.
    SessionsLostAtSnapshot,
    /// A stale read reports the time since the last contact with the leader as its age.
    AgeBySilence,
    /// A host's mistake: a failed server is restarted in the same process, from its disk, while writes of the
    /// failed one are still in flight. It does not know of the vote in one of them, gives another, and takes
    /// the completion of the old write for that of its own.
    RestartedInPlace,
}

impl Bug {
    /// All mistakes.
    pub const ALL: [Bug; 16] = [
        Bug::SiblingsDropped,
        Bug::CounterRestarts,
        Bug::IdKeptAfterCrash,
        Bug::AckBeforeDurable,
        Bug::WriteQuorumByLiveness,
        Bug::GcSkipped,
        Bug::DuplicatesAccepted,
        Bug::DoubtForgotten,
        Bug::VoteNotDurable,
        Bug::OldTermCommit,
        Bug::NoPreVote,
        Bug::StaleReadIndex,
        Bug::RaftAckBeforeDurable,
        Bug::SessionsLostAtSnapshot,
        Bug::AgeBySilence,
        Bug::RestartedInPlace,
    ];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::SiblingsDropped => "siblings-dropped",
            Bug::CounterRestarts => "counter-restarts",
            Bug::IdKeptAfterCrash => "id-kept-after-crash",
            Bug::AckBeforeDurable => "ack-before-durable",
            Bug::WriteQuorumByLiveness => "write-quorum-by-liveness",
            Bug::GcSkipped => "gc-skipped",
            Bug::DuplicatesAccepted => "duplicates-accepted",
            Bug::DoubtForgotten => "doubt-forgotten",
            Bug::VoteNotDurable => "vote-not-durable",
            Bug::OldTermCommit => "old-term-commit",
            Bug::NoPreVote => "no-pre-vote",
            Bug::StaleReadIndex => "stale-read-index",
            Bug::RaftAckBeforeDurable => "raft-ack-before-durable",
            Bug::SessionsLostAtSnapshot => "sessions-lost-at-snapshot",
            Bug::AgeBySilence => "age-by-silence",
            Bug::RestartedInPlace => "restarted-in-place",
        }
    }
}

/// The enabled mistakes: none, unless a test says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bugs(u32);

impl Bugs {
    /// No mistakes.
    pub const fn none() -> Self {
        Bugs(0)
    }

    /// These mistakes.
    pub fn deliberate(bugs: impl IntoIterator<Item = Bug>, _permit: Permit) -> Self {
        Bugs(bugs.into_iter().fold(0, |set, bug| set | 1 << bug as u32))
    }

    /// Whether this mistake is enabled.
    pub const fn has(self, bug: Bug) -> bool {
        self.0 & 1 << bug as u32 != 0
    }

    /// The enabled mistakes.
    pub fn iter(self) -> impl Iterator<Item = Bug> {
        Bug::ALL.into_iter().filter(move |bug| self.has(*bug))
    }
}
