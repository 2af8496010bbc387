//! The five properties of Raft, by their names in Figure 3 of the paper.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014.) A property is a function of what can be
//! seen of servers from outside ([`Server`]) and of what was seen of them before: who has led ([`Leaders`]), what was
//! committed ([`Commits`]). What remembers it is up to who checks: random runs and simulations keep everything, in
//! [`Figure3`]; an explorer of all states keeps arrays of a few bytes.
//!
//! Two properties exist in two strengths. While a run goes on, each server is looked at after each of its steps, at a cost
//! that does not grow with its log; now and then all of them are compared entry by entry ([`Figure3::look_closely`]).
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
//! figure3.look(&Leader("n1", 3))?;
//! figure3.look(&Leader("n2", 4))?;
//! let broken = figure3.look(&Leader("n3", 4)).unwrap_err();
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

/// Why a state must not be: the property, and how it is broken.
pub type Verdict = Result<(), String>;

/// A server of a group, as the properties see it. Entries are counted from 1.
pub trait Server {
    /// Names its node.
    type Node: Copy + Ord + Display;
    /// What stands in its log.
    type Entry: Clone + PartialEq + Debug;

    /// Its node.
    fn node(&self) -> Self::Node;
    /// Its current term.
    fn term(&self) -> u64;
    /// Whether it leads in that.
    fn leads(&self) -> bool;
    /// The last entry that its log does not have any more, because a snapshot stands for it; 0 if it has all.
    fn base(&self) -> u64;
    /// The last entry of its log; the base if it has none.
    fn last(&self) -> u64;
    /// The last entry that it takes for committed.
    fn commit(&self) -> u64;
    /// An entry behind the base.
    fn entry(&self, index: u64) -> Option<&Self::Entry>;
    /// The term of an entry behind the base, or of the base.
    fn term_at(&self, index: u64) -> Option<u64>;
}

/// What is known about a group so far.
#[derive(Clone, Debug)]
pub struct Figure3<N, E> {
    leaders: BTreeMap<u64, N>,
    append_only: LeaderAppendOnly,
    matching: LogMatching<E>,
    commits: Commits<N, E>,
    /// The reigns whose leaders were held to what was committed before.
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
    /// What was committed.
    pub fn commits(&self) -> &Commits<N, E> {
        &self.commits
    }

    /// A server starts: whatever it takes for committed is compared anew.
    pub fn restarted(&mut self, node: N) {
        self.commits.restarted(node);
    }

    /// A server has done something.
    ///
    /// # Errors
    /// A property does not hold.
    pub fn look(&mut self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
        self.matching.look(server)?;
        self.commits.look(server)?;
        if server.leads() {
            election_safety(server, &mut self.leaders)?;
            self.append_only.look(server)?;
            if self.complete.insert((server.node(), server.term())) {
                leader_completeness(server, &self.commits)?;
            }
        }
        Ok(())
    }

    /// Compares all servers entry by entry.
    ///
    /// # Errors
    /// A property does not hold.
    pub fn look_closely(&self, servers: &[impl Server<Node = N, Entry = E>]) -> Verdict {
        log_matching(servers)?;
        for server in servers {
            self.commits.look_closely(server)?;
        }
        for leader in servers.iter().filter(|server| server.leads()) {
            self.append_only.look_closely(leader)?;
            leader_completeness(leader, &self.commits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
