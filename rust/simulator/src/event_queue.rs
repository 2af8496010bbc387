//! The queue of future events in order: the core of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use quorate_core::time::Instant;
use slab::Slab;

/// Future events, ordered by time and, at the same time, by insertion. So ties are resolved deterministically and not by
/// the heap's internal order.
#[derive(Clone, Debug)]
pub struct EventQueue<T> {
    /// Time, sequence number, and key in `slab`: events are large, and a heap moves its entries.
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
    /// Schedules `what` at `at`.
    pub fn push(&mut self, at: Instant, what: T) {
        self.sequence += 1;
        let key = self.slab.insert(what);
        self.heap.push(Reverse((at, self.sequence, key)));
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, _, key)) = self.heap.pop()?;
        Some((at, self.slab.remove(key)))
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_ordered_by_time_and_insertion() {
        let mut queue = EventQueue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            queue.push(Instant(at), what);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcde");
    }
}
