//! The source of a replica's dots.

use bytes::Bytes;
use quorate_core::ids::ReplicaId;
use serde::{Deserialize, Serialize};

use crate::encoding::DecodeError;
use crate::vector::Dot;

/// The format of a recorded [`Reservation`]: this byte, the replica id, the mark, both as eight bytes, little
/// endian.
const FORMAT: u8 = 1;

/// The numbers that a replica may issue: those up to `mark`, under this id. Recorded before the first of them
/// is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// The id of the dots.
    pub replica: ReplicaId,
    /// The highest number.
    pub mark: u64,
}

impl Reservation {
    /// Encodes the reservation as a row.
    pub fn encode(&self) -> Bytes {
        let (replica, mark) = (self.replica.0.to_le_bytes(), self.mark.to_le_bytes());
        [&[FORMAT], replica.as_slice(), &mark].concat().into()
    }

    /// Decodes a reservation.
    ///
    /// # Errors
    /// [`DecodeError`], for a row of another format or length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "reservation of dots";
        let (&found, rest) = bytes.split_first().ok_or(DecodeError::Empty { what })?;
        if found != FORMAT {
            let newest = FORMAT;
            return Err(DecodeError::UnknownFormat { what, found, newest });
        }
        let malformed = || DecodeError::Malformed {
            what,
            size: bytes.len(),
            reason: "an id and a number take sixteen bytes".to_owned(),
        };
        let (replica, mark) = rest.split_first_chunk().ok_or_else(malformed)?;
        Ok(Reservation {
            replica: ReplicaId(u64::from_le_bytes(*replica)),
            mark: u64::from_le_bytes(mark.try_into().map_err(|_| malformed())?),
        })
    }
}

/// Numbers a replica's writes, so that no number is ever issued twice under one id.
///
/// Writing the counter before each write would cost a disk sync per write. So the replica reserves a *block*:
/// it makes a high-water mark durable, together with its id, and then issues the numbers up to it from
/// memory.
///
/// The driving contract: call [`DotCounter::reservation`] at the start and after each dot. When it returns a
/// reservation, persist it, and call [`DotCounter::reserved`] once it is durable. The next block is requested
/// when half of the current one is left, so that writes do not wait for it. A replica that may have forgotten
/// a dot that it issued drops its counter and starts another, under a new id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DotCounter {
    replica: ReplicaId,
    block: u64,
    /// The mark at its start.
    start: u64,
    /// The last number issued.
    last: u64,
    /// The durable mark: numbers up to here may be issued.
    mark: u64,
    /// A higher mark whose write is in flight.
    pending: Option<u64>,
}

impl DotCounter {
    /// A counter for a replica id whose durable mark is `mark` (0 for a new id) and which reserves `block` numbers at
    /// a time.
    ///
    /// # Panics
    /// If `block` is 0.
    pub fn recover(replica: ReplicaId, mark: u64, block: u64) -> Self {
        assert!(block > 0, "a block of dots has at least one");
        DotCounter {
            replica,
            block,
            start: mark,
            last: mark,
            mark,
            pending: None,
        }
    }

    /// The replica id of its dots.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Whether it has issued a dot.
    pub fn is_used(&self) -> bool {
        self.last > self.start
    }

    /// Issues the next dot, or `None` when the block is exhausted: wait for the reservation.
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

    /// The reservation to make durable now, if one is due. Each is returned once.
    ///
    /// # Panics
    /// If the 64 bits of the counter are exhausted.
    pub fn reservation(&mut self) -> Option<Reservation> {
        if self.pending.is_some() || self.mark - self.last > self.block / 2 {
            return None;
        }
        let mark = self.mark.checked_add(self.block).expect("counter exhausted");
        self.pending = Some(mark);
        let replica = self.replica;
        Some(Reservation { replica, mark })
    }

    /// A reservation is durable. One of an earlier counter is ignored.
    ///
    /// # Panics
    /// If it has this counter's id but was not requested.
    pub fn reserved(&mut self, reservation: Reservation) {
        if reservation.replica == self.replica {
            assert_eq!(
                self.pending.take(),
                Some(reservation.mark),
                "a mark that was not requested"
            );
            self.mark = reservation.mark;
        }
    }

    /// A reservation could not be made durable, and nothing was written; it will be requested again.
    pub fn reservation_failed(&mut self, reservation: Reservation) {
        if reservation.replica == self.replica {
            self.pending = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::NodeId;

    use super::*;

    fn replica() -> ReplicaId {
        ReplicaId::new(NodeId(1), 1)
    }

    fn up_to(mark: u64) -> Reservation {
        let replica = replica();
        Reservation { replica, mark }
    }

    #[test]
    fn nothing_is_issued_before_the_mark_is_durable() {
        let mut counter = DotCounter::recover(replica(), 0, 4);
        assert_eq!(counter.issue(), None);
        assert_eq!(counter.reservation(), Some(up_to(4)));
        assert_eq!(counter.reservation(), None, "requested once");
        assert_eq!(counter.issue(), None);
        assert!(!counter.is_used());
        counter.reserved(up_to(4));
        let issued: Vec<u64> = std::iter::from_fn(|| counter.issue())
            .map(|dot| dot.counter)
            .collect();
        assert_eq!(issued, [1, 2, 3, 4]);
        assert!(counter.is_used());
    }

    #[test]
    fn the_next_block_is_requested_at_half_of_this_one() {
        let mut counter = DotCounter::recover(replica(), 0, 4);
        counter.reservation();
        counter.reserved(up_to(4));
        counter.issue();
        assert_eq!(counter.reservation(), None);
        counter.issue();
        assert_eq!(counter.reservation(), Some(up_to(8)));
        counter.reservation_failed(up_to(8));
        assert_eq!(counter.reservation(), Some(up_to(8)), "retried after a failure");
        counter.reserved(up_to(8));
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
                if let Some(reservation) = counter.reservation() {
                    durable = reservation.mark;
                    counter.reserved(reservation);
                }
                let dot = counter.issue().expect("reserved");
                assert!(dot.counter > last, "{dot:?} after {last}");
                last = dot.counter;
            }
            // A mark that became durable although its completion was lost in the crash.
            if let Some(reservation) = counter.reservation() {
                durable = reservation.mark;
            }
        }
    }

    #[test]
    fn a_reservation_of_an_earlier_counter_is_ignored() {
        let mut counter = DotCounter::recover(ReplicaId::new(NodeId(1), 2), 0, 4);
        let own = counter.reservation().unwrap();
        counter.reserved(up_to(9));
        assert_eq!(counter.issue(), None);
        counter.reservation_failed(up_to(9));
        assert_eq!(counter.reservation(), None, "its own one is in flight");
        counter.reserved(own);
        assert!(counter.issue().is_some());
    }

    #[test]
    fn golden_bytes_of_a_reservation() {
        let reservation = Reservation {
            replica: ReplicaId::new(NodeId(0x0102), 0xa1a2_a3a4_a5a6),
            mark: 0x0001_0000,
        };
        let golden = [
            1, 0xa6, 0xa5, 0xa4, 0xa3, 0xa2, 0xa1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0,
        ];
        assert_eq!(reservation.encode().as_ref(), golden);
        assert_eq!(Reservation::decode(&golden), Ok(reservation));
        for length in 0..golden.len() {
            assert!(Reservation::decode(&golden[..length]).is_err());
        }
        assert!(Reservation::decode(&[&golden[..], &[0]].concat()).is_err());
        assert!(Reservation::decode(&[&[2], &golden[1..]].concat()).is_err());
    }
}
