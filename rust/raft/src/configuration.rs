//! The members of a group and the quorums that its decisions need.
//!
//! **Voters** elect leaders and commit entries. **Learners** receive the log but do not vote: new members
//! catch up as learners, and the control plane's members beyond the seventh remain learners. A group that
//! changes from one set of voters to another is in **joint consensus** (section 6): every decision takes a
//! majority of the voters *and* a majority of the *outgoing* ones. Formats and arithmetic support this from
//! the start; changing a live group is not implemented yet.

use std::collections::BTreeSet;
use std::fmt;

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::quorum::{self, Ballot};

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Members that vote.
    pub voters: BTreeSet<NodeId>,
    /// Members that voted before the change and vote until it is complete; empty outside of a change.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that only replicate. None of them votes.
    pub learners: BTreeSet<NodeId>,
}

impl Configuration {
    /// A configuration with these voters.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Configuration {
            voters: voters.into_iter().collect(),
            ..Configuration::default()
        }
    }

    /// Whether this node votes.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Every voter, outgoing ones included, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.union(&self.outgoing).copied()
    }

    /// Every member that receives the log, each once.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let learners = self.learners.iter().copied();
        self.all_voters()
            .chain(learners.filter(|node| !self.is_voter(*node)))
    }

    /// The highest value that a quorum has reached, where `reached` gives each voter's value: a log index
    /// that a quorum has, an instant of contact with a quorum. `None` without voters.
    pub fn agreed<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> Option<T> {
        let of = |voters: &BTreeSet<NodeId>| quorum::agreed(voters.iter().map(|node| reached(*node)));
        let incoming = of(&self.voters)?;
        Some(of(&self.outgoing).map_or(incoming, |outgoing| incoming.min(outgoing)))
    }

    /// The result of an election so far, where `vote` gives each voter's answer, if any.
    pub fn ballot(&self, vote: impl Fn(NodeId) -> Option<bool>) -> Ballot {
        let of = |voters: &BTreeSet<NodeId>| quorum::ballot(voters.iter().map(|node| vote(*node)));
        match of(&self.voters) {
            // A configuration without voters elects no leader.
            Ballot::Won if self.voters.is_empty() => Ballot::Lost,
            incoming => incoming.and(of(&self.outgoing)),
        }
    }
}

impl fmt::Display for Configuration {
    /// `n1 n2 n3`, `n1 n2 (learners n4)`, `n1 n2 (outgoing n1 n3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |nodes: &BTreeSet<NodeId>| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        f.write_str(&list(&self.voters))?;
        if !self.outgoing.is_empty() {
            write!(f, " (outgoing {})", list(&self.outgoing))?;
        }
        if !self.learners.is_empty() {
            write!(f, " (learners {})", list(&self.learners))?;
        }
        Ok(())
    }
}
