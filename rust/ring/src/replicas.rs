//! The lookup table of one replica count: from a token to its preference list in a few nanoseconds.

use std::collections::BTreeMap;

use quorate_core::ids::NodeId;

use super::preference::{Sites, preference_lists};
use super::{Ring, RingError, Token, TokenRange};

/// The preference lists of a ring for one number of replicas, made once per ring and keyspace setting.
///
/// The top bits of a token index a table that gives the two of the ring's tokens to search between; there are
/// four times as many entries as tokens, so that about one token remains. Equal lists are stored once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaTable {
    replicas: u8,
    tokens: Vec<Token>,
    /// Per token, the index of its arc's list.
    list_of: Vec<u32>,
    /// The distinct lists, concatenated, in the order of their first arcs.
    lists: Vec<NodeId>,
    /// Per value of a token's top bits, the number of `tokens` below it; one more at the end.
    index: Vec<u32>,
    /// The right shift that leaves a token's top bits.
    shift: u32,
}

impl ReplicaTable {
    pub(super) fn of(ring: &Ring, replicas: u8) -> Result<Self, RingError> {
        ring.check_replicas(replicas)?;
        let n = usize::from(replicas);
        let members = ring.members();
        let by_arc = preference_lists(&ring.owner_slots(), &Sites::of(members), n);

        let mut numbers = BTreeMap::new();
        let mut list_of = Vec::with_capacity(ring.tokens().len());
        let mut lists = Vec::new();
        for list in by_arc.chunks_exact(n) {
            let next = numbers.len() as u32;
            let number = *numbers.entry(list).or_insert(next);
            if number == next {
                lists.extend(list.iter().map(|slot| members[usize::from(*slot)].node));
            }
            list_of.push(number);
        }

        let tokens: Vec<Token> = ring.tokens().iter().map(|(token, _)| *token).collect();
        let bits = tokens.len().next_power_of_two().trailing_zeros() + 2;
        let shift = u64::BITS - bits;
        let below = |top: u64| tokens.partition_point(|token| token.0 >> shift < top) as u32;
        let index = (0..=1 << bits).map(below).collect();
        Ok(ReplicaTable {
            replicas,
            tokens,
            list_of,
            lists,
            index,
            shift,
        })
    }

    /// The number of nodes on each list.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The nodes that store the keys of `token`, most preferred first. The first one is the primary.
    #[inline]
    pub fn lookup(&self, token: Token) -> &[NodeId] {
        self.set(self.set_of(token))
    }

    /// The number of the list that [`lookup`](Self::lookup) returns: keys with the same number go to the same nodes.
    #[inline]
    pub fn set_of(&self, token: Token) -> usize {
        let top = (token.0 >> self.shift) as usize;
        let (low, high) = (self.index[top] as usize, self.index[top + 1] as usize);
        let arc = low + self.tokens[low..high].partition_point(|end| *end < token);
        // After the last token the first one's arc begins.
        let arc = if arc == self.tokens.len() { 0 } else { arc };
        self.list_of[arc] as usize
    }

    /// The list with a number from [`set_of`](Self::set_of), which is below the number of [`sets`](Self::sets).
    #[inline]
    pub fn set(&self, number: usize) -> &[NodeId] {
        let n = usize::from(self.replicas);
        &self.lists[number * n..(number + 1) * n]
    }

    /// The distinct preference lists, in the order of their numbers.
    pub fn sets(&self) -> impl ExactSizeIterator<Item = &[NodeId]> {
        self.lists.chunks_exact(usize::from(self.replicas))
    }

    /// Every arc of the ring with its preference list, in the order of their ends.
    pub fn arcs(&self) -> impl Iterator<Item = (TokenRange, &[NodeId])> {
        let last = self.tokens[self.tokens.len() - 1];
        let starts = std::iter::once(last).chain(self.tokens.iter().copied());
        starts
            .zip(&self.tokens)
            .zip(&self.list_of)
            .map(|((start, end), list)| {
                let range = TokenRange { start, end: *end };
                (range, self.set(*list as usize))
            })
    }
}
