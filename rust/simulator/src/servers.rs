//! A server of a Raft group, for the properties of Figure 3.

use quorate_checker::figure3;
use quorate_core::ids::NodeId;
use quorate_raft::Raft;
use quorate_raft::entry::Entry;
use quorate_raft::types::LogIndex;

/// A node's server.
pub(crate) struct Seen<'a>(pub(crate) NodeId, pub(crate) &'a Raft);

impl figure3::Server for Seen<'_> {
    type Node = NodeId;
    type Entry = Entry;

    fn node(&self) -> NodeId {
        self.0
    }

    fn term(&self) -> u64 {
        self.1.term().0
    }

    fn leads(&self) -> bool {
        self.1.is_leader()
    }

    fn base(&self) -> u64 {
        self.1.log().base().index.0
    }

    fn last(&self) -> u64 {
        self.1.log().last().index.0
    }

    fn commit(&self) -> u64 {
        self.1.log().commit().0
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        self.1.log().entry(LogIndex(index))
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        self.1.log().term_at(LogIndex(index)).map(|term| term.0)
    }
}
