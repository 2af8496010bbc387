//! What is going to happen, in the order in which it will: the heart of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use quorate_core::time::Instant;
use slab::Slab;

/// Future happenings, taken out by time and, at the same time, in the order in which they were put in. Ties are
/// therefore decided by the run itself and never by a heap's inner order: the same run takes the same turns.
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    /// When, in which order, and where in `slab`: what happens is large, and a heap moves its entries about.
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    slab: Slab<T>,
    sequence: u64,
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        EventQueue {
            heap: BinaryHeap::new(),
            slab: Slab::new(),
            sequence: 0,
        }
    }
}

impl<T> EventQueue<T> {
    /// Puts `what` on the event queue for the moment `at`.
    pub fn push(&mut self, at: Instant, what: T) {
        self.sequence += 1;
        let key = self.slab.insert(what);
        self.heap.push(Reverse((at, self.sequence, key)));
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next thing.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, _, key)) = self.heap.pop()?;
        Some((at, self.slab.remove(key)))
    }

    /// How much is on it.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing will happen any more.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_by_arrival() {
        let mut queue = EventQueue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            queue.push(Instant(at), what);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcde");
    }
}
