//! Deliberate mistakes that the simulator must catch: a test of the tests. Never set outside them.

use crate::raft::bugs::RaftBugs;

/// Which mistakes the roles make. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bugs {
    /// A write is sent to the other replicas without the key's other siblings (but with the whole vector).
    pub siblings_dropped: bool,
    /// A replica keeps its id after a crash, and its counter of dots starts again from one.
    pub counter_restarts: bool,
    /// A replica keeps its id after a crash, with a counter above all that it may have given out.
    pub id_kept_after_crash: bool,
    /// A replica acknowledges before the write is durable.
    pub ack_before_durable: bool,
    /// A coordinator counts replicas that are alive instead of those that acknowledged.
    pub write_quorum_by_liveness: bool,
    /// What a dropped keyspace has left stays.
    pub sweeping_left_out: bool,
    /// A request of another node that comes twice counts as two.
    pub repeats_taken: bool,
    /// A gate takes an attempt without an answer for one that was declined.
    pub doubt_forgotten: bool,
    /// Mistakes of servers of consensus groups.
    pub raft: RaftBugs,
}
