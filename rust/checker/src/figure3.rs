//! The five properties of Raft in Figure 3 of the paper.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014.) A property is a
//! function of the visible state of servers ([`Server`]) and of what was observed before: the leaders so far
//! ([`Leaders`]), the committed entries ([`Commits`]). The caller decides how to store that: random runs and
//! simulations store everything, in [`Figure3`]; a model checker stores arrays of a few bytes.
//!
//! Two properties exist in two strengths. During a run, each server is checked after each of its steps, at a
//! cost independent of the length of its log; from time to time all of them are compared entry by entry
//! ([`Figure3::check_thoroughly`]).
//!
//! ```
//! use quorate_checker::figure3::{Figure3, Server};
//!
//! struct Leader(&'static str, u64);
//! impl Server for Leader {
//!     type Node = &'static str;
//!     type Entry = ();
//!     fn node(&self) -> &'static str { self.0 }
//!     fn term(&self) -> u64 { self.1 }
//!     fn leads(&self) -> bool { true }
//!     fn base(&self) -> u64 { 0 }
//!     fn last(&self) -> u64 { 0 }
//!     fn commit(&self) -> u64 { 0 }
//!     fn entry(&self, _index: u64) -> Option<&()> { None }
//!     fn term_at(&self, index: u64) -> Option<u64> { (index == 0).then_some(0) }
//! }
//! let mut figure3 = Figure3::default();
//! figure3.check(&Leader("n1", 3))?;
//! figure3.check(&Leader("n2", 4))?;
//! let broken = figure3.check(&Leader("n3", 4)).unwrap_err();
//! assert_eq!(broken, "election safety: n2 and n3 both lead in t4");
//! # Ok::<(), String>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

mod election_safety;
mod leader_append_only;
mod leader_completeness;
mod log_matching;
mod state_machine_safety;

pub use election_safety::{Leaders, election_safety};
pub use leader_append_only::{LeaderAppendOnly, leader_append_only};
pub use leader_completeness::leader_completeness;
pub use log_matching::{LogMatching, log_matching};
pub use state_machine_safety::{Commit, Commits, Committed, state_machine_safety};

/// Describes the violated property.
pub type Verdict = Result<(), String>;

/// A server of a group, as the properties see it. Entries are counted from 1.
pub trait Server {
    /// The name of its node.
    type Node: Copy + Ord + Display;
    /// The content of a log entry.
    type Entry: Clone + PartialEq + Debug;

    /// Its node.
    fn node(&self) -> Self::Node;
    /// Its current term.
    fn term(&self) -> u64;
    /// Whether it leads in that term.
    fn leads(&self) -> bool;
    /// The last compacted entry, which a snapshot covers; 0 if there is none.
    fn base(&self) -> u64;
    /// The last entry of its log; the base if it has none.
    fn last(&self) -> u64;
    /// The last entry that it considers committed.
    fn commit(&self) -> u64;
    /// An entry after the base.
    fn entry(&self, index: u64) -> Option<&Self::Entry>;
    /// The term of an entry after the base, or of the base.
    fn term_at(&self, index: u64) -> Option<u64>;
}

/// The observations of a group so far.
#[derive(Clone, Debug)]
pub struct Figure3<N, E> {
    leaders: BTreeMap<u64, N>,
    append_only: LeaderAppendOnly,
    matching: LogMatching<E>,
    commits: Commits<N, E>,
    /// The leaders whose completeness has been checked.
    complete: BTreeSet<(N, u64)>,
}

impl<N, E> Default for Figure3<N, E> {
    fn default() -> Self {
        Figure3 {
            leaders: BTreeMap::new(),
            append_only: LeaderAppendOnly::default(),
            matching: LogMatching::default(),
            commits: Commits::default(),
            complete: BTreeSet::new(),
        }
    }
}

impl<N: Copy + Ord + Display, E: Clone + PartialEq + Debug> Figure3<N, E> {
    /// The committed entries.
    pub fn commits(&self) -> &Commits<N, E> {
        &self.commits
    }

    /// A server starts: its commits are compared again.
    pub fn restarted(&mut self, node: N) {
        self.commits.restarted(node);
    }

    /// Checks a server after a step.
    ///
    /// # Errors
    /// The violated property.
    pub fn check(&mut self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
        self.matching.check(server)?;
        self.commits.check(server)?;
        if server.leads() {
            election_safety(server, &mut self.leaders)?;
            self.append_only.check(server)?;
            if self.complete.insert((server.node(), server.term())) {
                leader_completeness(server, &self.commits)?;
            }
        }
        Ok(())
    }

    /// Compares all servers entry by entry.
    ///
    /// # Errors
    /// The violated property.
    pub fn check_thoroughly(&self, servers: &[impl Server<Node = N, Entry = E>]) -> Verdict {
        log_matching(servers)?;
        for server in servers {
            self.commits.check_thoroughly(server)?;
        }
        for leader in servers.iter().filter(|server| server.leads()) {
            self.append_only.check_thoroughly(leader)?;
            leader_completeness(leader, &self.commits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
