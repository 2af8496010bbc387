//! The source of a replica's dots.

use serde::{Deserialize, Serialize};

use crate::ids::ReplicaId;
use crate::versions::Dot;

/// Numbers a replica's writes, so that no number is ever given twice, crashes included.
///
/// Writing the counter down before each write would cost a disk sync per write. So the replica reserves a *block*: it
/// makes a high-water mark durable and then gives out the numbers up to it from memory. After a crash it starts above
/// the last durable mark; the rest of the block is lost, which does no harm, because a counter need not be dense.
///
/// How to drive it: call [`DotCounter::reservation`] at the start and after each dot. When it returns a mark, persist that, and
/// tell [`DotCounter::reserved`] once it is durable. The next block is asked for when half of the current one is
/// left, so that writes do not wait for it. A block belongs to one replica id: a lost or restored data directory gets
/// a new id and starts at 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DotCounter {
    replica: ReplicaId,
    block: u64,
    /// The last number given.
    last: u64,
    /// Numbers up to here may be given: durable.
    mark: u64,
    /// A higher mark on its way to the disk.
    pending: Option<u64>,
}

impl DotCounter {
    /// A counter for a replica whose durable mark is `mark` (0 for a new directory) and which reserves `block` numbers
    /// at a time.
    ///
    /// # Panics
    /// If `block` is 0.
    pub fn recover(replica: ReplicaId, mark: u64, block: u64) -> Self {
        assert!(block > 0, "a block of dots has at least one");
        DotCounter {
            replica,
            block,
            last: mark,
            mark,
            pending: None,
        }
    }

    /// The replica whose writes it numbers.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The next dot, or `None` when the block is used up: wait for the reservation.
    pub fn issue(&mut self) -> Option<Dot> {
        if self.last == self.mark {
            return None;
        }
        self.last += 1;
        Some(Dot {
            replica: self.replica,
            counter: self.last,
        })
    }

    /// A mark to make durable now, if one is due. Each is returned once.
    ///
    /// # Panics
    /// If the 64 bits of the counter are exhausted.
    pub fn reservation(&mut self) -> Option<u64> {
        if self.pending.is_some() || self.mark - self.last > self.block / 2 {
            return None;
        }
        self.pending = Some(self.mark.checked_add(self.block).expect("counter exhausted"));
        self.pending
    }

    /// The mark that [`DotCounter::reservation`] returned is durable.
    ///
    /// # Panics
    /// If it is not the mark that was asked for.
    pub fn reserved(&mut self, mark: u64) {
        assert_eq!(self.pending.take(), Some(mark), "a mark that was not asked for");
        self.mark = mark;
    }

    /// The mark could not be made durable and nothing of it was written; it will be asked for again.
    pub fn reservation_failed(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn replica() -> ReplicaId {
        ReplicaId::new(NodeId(1), 1)
    }

    #[test]
    fn nothing_is_issued_before_the_mark_is_durable() {
        let mut counter = DotCounter::recover(replica(), 0, 4);
        assert_eq!(counter.issue(), None);
        assert_eq!(counter.reservation(), Some(4));
        assert_eq!(counter.reservation(), None, "asked once");
        assert_eq!(counter.issue(), None);
        counter.reserved(4);
        let issued: Vec<u64> = std::iter::from_fn(|| counter.issue())
            .map(|dot| dot.counter)
            .collect();
        assert_eq!(issued, [1, 2, 3, 4]);
    }

    #[test]
    fn the_next_block_is_asked_for_at_half_of_this_one() {
        let mut counter = DotCounter::recover(replica(), 0, 4);
        counter.reservation();
        counter.reserved(4);
        counter.issue();
        assert_eq!(counter.reservation(), None);
        counter.issue();
        assert_eq!(counter.reservation(), Some(8));
        counter.reservation_failed();
        assert_eq!(counter.reservation(), Some(8), "asked again after a failure");
        counter.reserved(8);
        let issued: Vec<u64> = std::iter::from_fn(|| counter.issue())
            .map(|dot| dot.counter)
            .collect();
        assert_eq!(issued, [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn numbers_never_repeat_wherever_it_crashes() {
        let mut durable = 0;
        let mut last = 0;
        for crash_after in [0, 1, 2, 3, 7, 1, 0, 12] {
            let mut counter = DotCounter::recover(replica(), durable, 4);
            for _ in 0..crash_after {
                if let Some(mark) = counter.reservation() {
                    durable = mark;
                    counter.reserved(mark);
                }
                let dot = counter.issue().expect("reserved");
                assert!(dot.counter > last, "{dot:?} after {last}");
                last = dot.counter;
            }
            // A mark that became durable although the answer was lost with the crash.
            if let Some(mark) = counter.reservation() {
                durable = mark;
            }
        }
    }
}
