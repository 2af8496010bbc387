//! The transfer of envelopes in chunks: the queue at the sender, the assembly at the receiver.
//!
//! One envelope is transferred at a time; the next begins when the last chunk of the previous one is in a batch.

use std::collections::VecDeque;

use quorate_core::time::Instant;
use quorate_raft::types::GroupId;

use crate::link::batch::{Chunk, MAX_CHUNK};
use crate::link::lane::Queue;
use crate::link::settings::MAX_ENVELOPE;
use crate::wire::stamp_deadline;

/// A pending encoded envelope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    encoded: Vec<u8>,
    deadline: Instant,
    order: Option<Order>,
}

/// The order of an append relative to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Order {
    /// It stays in order with the appends of this group.
    pub(super) group: GroupId,
    /// It is sent after this entry of the data lane.
    pub(super) after: u64,
}

/// The bulk lane at the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct BulkQueue {
    waiting: VecDeque<Waiting>,
    /// The envelope that is being sent; it has chunks left.
    current: Option<Transfer>,
    /// Of the waiting ones and the current one.
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transfer {
    number: u64,
    what: Waiting,
    offset: usize,
}

impl BulkQueue {
    /// The bytes of the queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Envelopes that have not been sent completely.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    pub(super) fn push(&mut self, encoded: Vec<u8>, deadline: Instant, order: Option<Order>) {
        self.bytes += encoded.len();
        self.waiting.push_back(Waiting {
            encoded,
            deadline,
            order,
        });
    }

    /// Whether an append of this group has not been sent completely.
    pub(super) fn has_appends_of(&self, group: GroupId) -> bool {
        let current = self.current.as_ref().map(|transfer| &transfer.what);
        let of_group = |waiting: &Waiting| waiting.order.is_some_and(|order| order.group == group);
        self.waiting.iter().chain(current).any(of_group)
    }

    pub(super) fn in_progress(&self) -> bool {
        self.current.is_some()
    }

    /// The size of the next envelope, if its order allows sending it; expired ones before it are removed and counted.
    pub(super) fn front(&mut self, data: &Queue, now: Instant, expired: &mut u64) -> Option<usize> {
        while let Some(waiting) = self.waiting.front() {
            if waiting.deadline > now {
                let its_turn = waiting.order.is_none_or(|order| data.has_passed(order.after));
                return its_turn.then_some(waiting.encoded.len());
            }
            self.bytes -= waiting.encoded.len();
            self.waiting.pop_front();
            *expired += 1;
        }
        None
    }

    /// Begins the transfer of the first waiting envelope, with this number in the session.
    pub(super) fn begin(&mut self, number: u64, now: Instant) {
        assert!(self.current.is_none(), "one transfer at a time");
        let mut what = self.waiting.pop_front().expect("there is a first envelope");
        stamp_deadline(&mut what.encoded, now, what.deadline);
        self.current = Some(Transfer {
            number,
            what,
            offset: 0,
        });
    }

    /// Passes the next chunk of the transfer to `write`. The last one ends the transfer.
    pub(super) fn next_chunk(&mut self, write: impl FnOnce(&Chunk<'_>)) {
        let mut transfer = self.current.take().expect("a transfer is in progress");
        let encoded = &transfer.what.encoded;
        let end = encoded.len().min(transfer.offset + MAX_CHUNK);
        write(&Chunk {
            transfer: transfer.number,
            total: encoded.len() as u32,
            offset: transfer.offset as u32,
            bytes: &encoded[transfer.offset..end],
        });
        if end < encoded.len() {
            transfer.offset = end;
            self.current = Some(transfer);
        } else {
            self.bytes -= encoded.len();
        }
    }

    /// The session has ended. The current envelope cannot have arrived, so it is the first of the next session.
    pub(super) fn interrupt(&mut self) {
        if let Some(transfer) = self.current.take() {
            self.waiting.push_front(transfer.what);
        }
    }

    /// Removes all waiting envelopes that have expired and counts them.
    pub(super) fn prune(&mut self, now: Instant) -> u64 {
        let before = self.waiting.len();
        let bytes = &mut self.bytes;
        self.waiting.retain(|waiting| {
            let alive = waiting.deadline > now;
            if !alive {
                *bytes -= waiting.encoded.len();
            }
            alive
        });
        (before - self.waiting.len()) as u64
    }

    /// Removes everything and counts it.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.len() as u64;
        *self = BulkQueue::default();
        count
    }
}

/// The kind of an incoming chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// It arrived before.
    Duplicate,
    /// It begins an envelope of this many bytes.
    First(usize),
    /// It continues an envelope.
    Next,
}

/// The bulk lane at the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Assembly {
    /// The number of the current or next envelope.
    number: u64,
    /// Its bytes so far; never more than its announced size, which is never more than [`MAX_ENVELOPE`].
    encoded: Vec<u8>,
    /// Its announced size; 0 before its first chunk.
    total: usize,
    /// When its first chunk arrived: its deadline is relative to that time.
    begun: Instant,
}

impl Assembly {
    /// The kind of `chunk`, or why it is invalid.
    pub(super) fn classify(&self, chunk: &Chunk<'_>) -> Result<Arrived, String> {
        let (offset, total) = (chunk.offset as usize, chunk.total as usize);
        if chunk.transfer < self.number || (chunk.transfer == self.number && offset < self.encoded.len()) {
            return Ok(Arrived::Duplicate);
        }
        let first = self.total == 0;
        let sound = chunk.transfer == self.number
            && offset == self.encoded.len()
            && (first || total == self.total)
            && (1..=MAX_ENVELOPE).contains(&total)
            && !chunk.bytes.is_empty()
            && chunk.bytes.len() <= MAX_CHUNK
            && offset + chunk.bytes.len() <= total;
        match (sound, first) {
            (false, _) => Err(format!(
                "chunk of {} bytes at {offset} of {total} of transfer {} while transfer {} has {} of {}",
                chunk.bytes.len(),
                chunk.transfer,
                self.number,
                self.encoded.len(),
                self.total
            )),
            (true, true) => Ok(Arrived::First(total)),
            (true, false) => Ok(Arrived::Next),
        }
    }

    /// Adds a chunk that is not a [`Arrived::Duplicate`]; the last one completes the envelope, which is returned with the
    /// time at which it began to arrive.
    pub(super) fn add(&mut self, chunk: &Chunk<'_>, now: Instant) -> Option<(Vec<u8>, Instant)> {
        if self.total == 0 {
            self.total = chunk.total as usize;
            self.begun = now;
        }
        self.encoded.extend_from_slice(chunk.bytes);
        assert!(
            self.encoded.len() <= self.total,
            "an envelope larger than announced"
        );
        if self.encoded.len() < self.total {
            return None;
        }
        self.number += 1;
        self.total = 0;
        Some((std::mem::take(&mut self.encoded), self.begun))
    }

    /// The bytes of the partial envelope.
    pub(super) fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = crate::link::BULK_THRESHOLD + 100;

    fn chunk(transfer: u64, offset: usize, bytes: &[u8]) -> Chunk<'_> {
        Chunk {
            transfer,
            total: TOTAL as u32,
            offset: offset as u32,
            bytes,
        }
    }

    #[test]
    fn an_envelope_arrives_as_it_was_sent() {
        let mut queue = BulkQueue::default();
        let sent: Vec<u8> = (0..TOTAL).map(|at| at as u8).collect();
        queue.push(sent.clone(), Instant::NEVER, None);
        queue.begin(0, Instant(0));
        let mut assembly = Assembly::default();
        let mut complete = None;
        while queue.in_progress() {
            assert_eq!(complete, None);
            queue.next_chunk(|chunk| complete = assembly.add(chunk, Instant(5)));
        }
        let (received, begun) = complete.unwrap();
        assert_eq!((&received[4..], begun), (&sent[4..], Instant(5)));
        assert_eq!((queue.bytes(), queue.len(), assembly.bytes()), (0, 0, 0));
    }

    #[test]
    fn duplicate_chunks_are_ignored_and_invalid_ones_rejected() {
        let mut assembly = Assembly::default();
        let part = vec![7; 1000];
        assert_eq!(assembly.classify(&chunk(0, 0, &part)), Ok(Arrived::First(TOTAL)));
        assert_eq!(assembly.add(&chunk(0, 0, &part), Instant(1)), None);
        assert_eq!(assembly.classify(&chunk(0, 0, &part)), Ok(Arrived::Duplicate));
        assert_eq!(assembly.classify(&chunk(0, 1000, &part)), Ok(Arrived::Next));
        assert!(assembly.classify(&chunk(0, 1001, &part)).is_err(), "a gap");
        assert!(
            assembly.classify(&chunk(1, 0, &part)).is_err(),
            "the next before the end of this one"
        );
        assert!(assembly.classify(&chunk(0, 1000, b"")).is_err(), "nothing");
        let mut other = chunk(0, 1000, &part);
        other.total += 1;
        assert!(assembly.classify(&other).is_err(), "another size");
        let beyond = vec![7; MAX_CHUNK];
        assert_eq!(
            assembly.add(&chunk(0, 1000, &beyond[..MAX_CHUNK - 1000]), Instant(1)),
            None
        );
        assert!(
            assembly.classify(&chunk(0, MAX_CHUNK, &beyond)).is_err(),
            "beyond the end"
        );
        assert!(
            assembly
                .add(&chunk(0, MAX_CHUNK, &beyond[..TOTAL - MAX_CHUNK]), Instant(1))
                .is_some()
        );
        assert_eq!(assembly.classify(&chunk(0, 0, &part)), Ok(Arrived::Duplicate));
        assert_eq!(assembly.classify(&chunk(1, 0, &part)), Ok(Arrived::First(TOTAL)));
    }

    #[test]
    fn invalid_sizes_are_rejected() {
        for total in [0, MAX_ENVELOPE as u32 + 1, u32::MAX] {
            let mut chunk = chunk(0, 0, b"x");
            chunk.total = total;
            assert!(Assembly::default().classify(&chunk).is_err(), "{total}");
        }
    }

    #[test]
    fn an_interrupted_transfer_is_the_first_of_the_next_session() {
        let mut queue = BulkQueue::default();
        queue.push(vec![1; TOTAL], Instant::NEVER, None);
        queue.push(vec![2; TOTAL + 1], Instant::NEVER, None);
        queue.begin(0, Instant(0));
        queue.next_chunk(|_| ());
        queue.interrupt();
        let mut expired = 0;
        assert_eq!(
            queue.front(&Queue::new(false), Instant(9), &mut expired),
            Some(TOTAL)
        );
        assert_eq!((queue.bytes(), queue.len(), expired), (2 * TOTAL + 1, 2, 0));
    }

    #[test]
    fn expired_envelopes_do_not_begin() {
        let mut queue = BulkQueue::default();
        queue.push(vec![1; TOTAL], Instant(5), None);
        queue.push(vec![2; TOTAL], Instant(9), None);
        let mut expired = 0;
        assert_eq!(
            queue.front(&Queue::new(false), Instant(5), &mut expired),
            Some(TOTAL)
        );
        assert_eq!((expired, queue.bytes()), (1, TOTAL));
        assert_eq!(queue.prune(Instant(9)), 1);
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
    }
}
