//! The arithmetic of majorities, alone: every safety argument of Raft ends in "any two majorities share a
//! server".

use std::iter;

/// How many of `voters` are a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached; `None` without voters.
///
/// With match indexes this is what counting can commit: `[5, 3, 3]` gives 3, since two of three servers have
/// everything up to 3 and only one has more.
pub fn agreed<T: Ord + Copy>(reached: impl Iterator<Item = T> + Clone) -> Option<T> {
    let needed = majority(reached.clone().count());
    // Quadratic, without memory of its own: a group has at most a handful of voters.
    let at_least = |value: T| reached.clone().filter(|other| *other >= value).count();
    reached.clone().filter(|value| at_least(*value) >= needed).max()
}

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ballot {
    /// A majority refused, or so many that no majority can be reached any more.
    Lost,
    /// Neither yet.
    Open,
    /// A majority granted.
    Won,
}

impl Ballot {
    /// A ballot that takes both: the worse of the two.
    pub fn and(self, other: Ballot) -> Ballot {
        self.min(other)
    }
}

/// How a vote stands in which each voter has granted, refused or not answered. Without voters it is won: an
/// empty half of a joint configuration does not stand in the way.
pub fn ballot(votes: impl Iterator<Item = Option<bool>> + Clone) -> Ballot {
    let count = |wanted: Option<bool>| {
        votes
            .clone()
            .zip(iter::repeat(wanted))
            .filter(|(vote, wanted)| vote == wanted)
            .count()
    };
    let voters = votes.clone().count();
    let (granted, refused) = (count(Some(true)), count(Some(false)));
    if voters == 0 || granted >= majority(voters) {
        Ballot::Won
    } else if voters - refused < majority(voters) {
        Ballot::Lost
    } else {
        Ballot::Open
    }
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
