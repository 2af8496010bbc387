//! Deliberate mistakes that tests must catch: a test of the tests.
//!
//! Roles ask [`Bugs::has`] at the place where a mistake would be made. Anybody can say that there are none; only who has a
//! `quorate_permit::Permit` can say that there are some, and Cargo knows who that is: the testing crate and the simulator.

use quorate_permit::Permit;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bug {
    /// A write is sent to the other replicas without the key's other siblings (but with the whole vector).
    SiblingsDropped,
    /// A replica keeps its id after a crash, and its counter of dots starts again from one.
    CounterRestarts,
    /// A replica keeps its id after a crash, with a counter above all that it may have given out.
    IdKeptAfterCrash,
    /// A replica acknowledges before the write is durable.
    AckBeforeDurable,
    /// A coordinator counts replicas that are alive instead of those that acknowledged.
    WriteQuorumByLiveness,
    /// What a dropped keyspace has left stays.
    SweepingLeftOut,
    /// A request of another node that comes twice counts as two.
    RepeatsTaken,
    /// A forwarder takes an attempt without an answer for one that was declined.
    DoubtForgotten,
    /// A vote leaves before it is durable: a crash lets the voter vote again in the same term.
    VoteNotDurable,
    /// An entry of an earlier term counts as committed as soon as a majority has it (Figure 8).
    OldTermCommit,
    /// A server that hears no leader takes a new term at once: whoever comes back deposes a healthy leader.
    NoPreVote,
    /// A leader answers reads without asking whether it still is one.
    StaleReadIndex,
    /// Appends are acknowledged, and counted by the leader itself, before they are durable.
    RaftAckBeforeDurable,
    /// A snapshot does not hold the client sessions: after it, a retry is executed again.
    SessionsLostAtSnapshot,
    /// A stale read takes the time since the leader was heard of for the age of what it reads.
    AgeBySilence,
    /// A host's mistake: a server that has failed is started again in the same process, with what its disk has at that moment,
    /// while writes of the failed one are still in flight. It does not know of the vote in one of them, gives another, and
    /// takes the disk's answer to the old one for an answer to its own.
    RestartedInPlace,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 16] = [
        Bug::SiblingsDropped,
        Bug::CounterRestarts,
        Bug::IdKeptAfterCrash,
        Bug::AckBeforeDurable,
        Bug::WriteQuorumByLiveness,
        Bug::SweepingLeftOut,
        Bug::RepeatsTaken,
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

    /// Its name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::SiblingsDropped => "siblings-dropped",
            Bug::CounterRestarts => "counter-restarts",
            Bug::IdKeptAfterCrash => "id-kept-after-crash",
            Bug::AckBeforeDurable => "ack-before-durable",
            Bug::WriteQuorumByLiveness => "write-quorum-by-liveness",
            Bug::SweepingLeftOut => "sweeping-left-out",
            Bug::RepeatsTaken => "repeats-taken",
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

/// The mistakes that are made: none, unless a test says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bugs(u32);

impl Bugs {
    /// No mistakes.
    pub const fn none() -> Self {
        Bugs(0)
    }

    /// These mistakes, on purpose.
    pub fn deliberate(bugs: impl IntoIterator<Item = Bug>, _permit: Permit) -> Self {
        Bugs(bugs.into_iter().fold(0, |set, bug| set | 1 << bug as u32))
    }

    /// Whether this mistake is made.
    pub const fn has(self, bug: Bug) -> bool {
        self.0 & 1 << bug as u32 != 0
    }

    /// The mistakes that are made.
    pub fn iter(self) -> impl Iterator<Item = Bug> {
        Bug::ALL.into_iter().filter(move |bug| self.has(*bug))
    }
}
