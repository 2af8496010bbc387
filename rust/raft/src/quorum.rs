//! The arithmetic of majorities: every safety argument of Raft ends in "any two majorities share a server".

use std::iter;

/// The size of a majority of `voters`.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached; `None` without voters.
///
/// Applied to match indexes this is the highest index that counting can commit: `[5, 3, 3]` gives 3, since
/// two of three servers have everything up to 3 and only one has more.
pub fn agreed<T: Ord + Copy>(reached: impl Iterator<Item = T> + Clone) -> Option<T> {
    let needed = majority(reached.clone().count());
    // Quadratic, without allocation: a group has at most a handful of voters.
    let at_least = |value: T| reached.clone().filter(|other| *other >= value).count();
    reached.clone().filter(|value| at_least(*value) >= needed).max()
}

/// The result of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ballot {
    /// A majority refused, or a majority can no longer be reached.
    Lost,
    /// Undecided.
    Open,
    /// A majority granted.
    Won,
}

impl Ballot {
    /// The result of a vote that needs both: the worse of the two.
    pub fn and(self, other: Ballot) -> Ballot {
        self.min(other)
    }
}

/// The result of a vote in which each voter has granted, refused or not answered. Without voters it is won:
/// an empty half of a joint configuration does not block.
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
