//! What is going to happen, in the order in which it will: the heart of virtual time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use quorate_core::time::Instant;

/// Future happenings, taken out by time and, at the same time, in the order in which they were put in. Ties are
/// therefore decided by the run itself and never by a heap's inner order: the same run takes the same turns.
#[derive(Clone, Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    at: Instant,
    sequence: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<T> Agenda<T> {
    /// Puts `what` on the agenda for the moment `at`.
    pub fn put(&mut self, at: Instant, what: T) {
        self.sequence += 1;
        self.heap.push(Entry {
            at,
            sequence: self.sequence,
            what,
        });
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the next thing.
    pub fn take(&mut self) -> Option<(Instant, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
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

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the heap gives out its greatest entry, which is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_by_arrival() {
        let mut agenda = Agenda::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            agenda.put(Instant(at), what);
        }
        let order: String = std::iter::from_fn(|| agenda.take())
            .map(|(_, what)| what)
            .collect();
        assert_eq!(order, "abcde");
    }
}
