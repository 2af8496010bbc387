//! Who belongs to a group and whose consent it needs.
//!
//! **Voters** elect leaders and commit entries. **Learners** get the log but have no say: new members catch
//! up as learners, and the control plane's members beyond the seventh stay so. While a group changes from one
//! set of voters to another it is in **joint consensus** (section 6): the *outgoing* voters are still there,
//! and every decision takes a majority of the voters *and* a majority of the outgoing ones. Formats and
//! arithmetic know this from the start; changing a live group is not part of this module yet.

use std::collections::BTreeSet;
use std::fmt;

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::quorum::{self, Ballot};

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Those that vote.
    pub voters: BTreeSet<NodeId>,
    /// Those that voted before and vote until the change is through; empty outside of a change.
    pub outgoing: BTreeSet<NodeId>,
    /// Those that only follow. None of them votes.
    pub learners: BTreeSet<NodeId>,
}

impl Configuration {
    /// A group of these voters.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Configuration {
            voters: voters.into_iter().collect(),
            ..Configuration::default()
        }
    }

    /// Whether this node has a vote.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Everyone with a vote, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.union(&self.outgoing).copied()
    }

    /// Everyone who gets the log, each once.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let learners = self.learners.iter().copied();
        self.all_voters()
            .chain(learners.filter(|node| !self.is_voter(*node)))
    }

    /// The highest value that a quorum has reached, each voter having reached what `reached` says: a log
    /// index that a quorum has, an instant until which a quorum was heard. `None` without voters.
    pub fn agreed<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> Option<T> {
        let of = |voters: &BTreeSet<NodeId>| quorum::agreed(voters.iter().map(|node| reached(*node)));
        let incoming = of(&self.voters)?;
        Some(of(&self.outgoing).map_or(incoming, |outgoing| incoming.min(outgoing)))
    }

    /// How a ballot stands in which `vote` says what each voter has answered, if it has.
    pub fn ballot(&self, vote: impl Fn(NodeId) -> Option<bool>) -> Ballot {
        let of = |voters: &BTreeSet<NodeId>| quorum::ballot(voters.iter().map(|node| vote(*node)));
        match of(&self.voters) {
            // Nobody can be elected by nobody.
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
