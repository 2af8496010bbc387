//! When an entry is committed: a quorum has it durably, and it is of the leader's own term (5.3, 5.4.2 and
//! Figure 8).
//!
//! The arithmetic of quorums is in `quorum` and `configuration`; what a follower has durably is in
//! `progress`; how far the local disk has got is in `stable`. Committed entries leave the server as
//! [`Action::Apply`](crate::action::Action::Apply), in order; other servers may have them durably before this
//! one does.

use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;

use crate::server::{Raft, State};
use crate::types::LogIndex;

impl Raft {
    /// Commits what a quorum has durably, if it is of this term. Earlier entries are committed with it, but
    /// never by counting alone: a majority that has an old entry may still lose it to a leader that lacks it
    /// (Figure 8).
    pub(super) fn maybe_commit(&mut self) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let bugs = self.setup.bugs;
        let own = if bugs.has(Bug::RaftAckBeforeDurable) {
            self.log.last().index
        } else {
            self.log.stable()
        };
        let me = self.setup.me;
        let matched = |node: NodeId| match leader.progress.get(&node) {
            Some(progress) => progress.matched,
            None if node == me => own,
            None => LogIndex(0),
        };
        let Some(agreed) = self.log.configuration().agreed(matched) else {
            return;
        };
        if agreed >= leader.first || bugs.has(Bug::OldTermCommit) {
            self.log.commit_to(agreed);
        }
    }
}
