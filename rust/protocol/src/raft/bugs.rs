//! Deliberate mistakes that tests must catch: a test of the tests. Never set outside them.

/// Which mistakes a server makes. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RaftBugs {
    /// A vote leaves before it is durable: a crash lets the voter vote again in the same term.
    pub vote_not_durable: bool,
    /// An entry of an earlier term counts as committed as soon as a majority has it (Figure 8).
    pub old_term_commit: bool,
    /// A server that hears no leader takes a new term at once: whoever comes back deposes a healthy leader.
    pub no_pre_vote: bool,
    /// A leader answers reads without asking whether it still is one.
    pub stale_read_index: bool,
    /// Appends are acknowledged, and counted by the leader itself, before they are durable.
    pub ack_before_durable: bool,
    /// A snapshot does not hold the client sessions: after it, a retry is executed again.
    pub sessions_lost_at_snapshot: bool,
    /// A stale read takes the time since the leader was heard of for the age of what it reads.
    pub age_by_silence: bool,
    /// A host's mistake: a server that has failed is started again in the same process, with what its disk has at that moment,
    /// while writes of the failed one are still in flight. It does not know of the vote in one of them, gives another, and
    /// takes the disk's answer to the old one for an answer to its own.
    pub restarted_in_place: bool,
}
