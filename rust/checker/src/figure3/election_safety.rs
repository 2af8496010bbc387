//! At most one server leads in a term. (Section 5.2.)

use std::collections::BTreeMap;

use super::{Server, Verdict};

/// The leader of each term.
pub trait Leaders<N> {
    /// The first observed leader of this term: this one, if there was none.
    fn first(&mut self, term: u64, node: N) -> N;
}

impl<N: Copy> Leaders<N> for BTreeMap<u64, N> {
    fn first(&mut self, term: u64, node: N) -> N {
        *self.entry(term).or_insert(node)
    }
}

/// For terms below `K` only.
impl<N: Copy, const K: usize> Leaders<N> for [Option<N>; K] {
    fn first(&mut self, term: u64, node: N) -> N {
        *self[term as usize].get_or_insert(node)
    }
}

/// Checks a leader.
///
/// # Errors
/// Another server has led in its term.
pub fn election_safety<S: Server>(leader: &S, leaders: &mut impl Leaders<S::Node>) -> Verdict {
    let (node, term) = (leader.node(), leader.term());
    let first = leaders.first(term, node);
    match first == node {
        true => Ok(()),
        false => Err(format!(
            "election safety: {first} and {node} both lead in t{term}"
        )),
    }
}
