//! Committed entries are in the log of every later leader. (Section 5.4.)

use super::{Committed, Server, Verdict};

/// Checks a leader. If a later leader was active when it was elected, it need not have that one's entries.
///
/// # Errors
/// It lacks an entry that was committed in an earlier term.
pub fn leader_completeness<S: Server>(leader: &S, committed: &impl Committed<S::Entry>) -> Verdict {
    for commit in committed.commits(leader.base() + 1) {
        if leader.term() > commit.committed_in && leader.term_at(commit.index) != Some(commit.term) {
            return Err(format!(
                "leader completeness: {}, leader of t{}, lacks {}@t{}, committed in t{}",
                leader.node(),
                leader.term(),
                commit.index,
                commit.term,
                commit.committed_in
            ));
        }
    }
    Ok(())
}
