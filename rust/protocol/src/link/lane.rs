//! A lane's queue: encoded envelopes in one contiguous buffer.

use std::collections::VecDeque;

use quorate_core::time::Instant;

use crate::link::batch::BatchWriter;
use crate::wire::{Envelope, stamp_deadline};

/// The buffer is shrunk to this capacity when the queue is empty.
const KEPT_CAPACITY: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    number: u64,
    size: usize,
    deadline: Instant,
}

/// Envelopes in FIFO order. Invariant: the entries' sizes add up to the bytes after `start`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    /// Whether this is the control lane (or else the data lane), as marked in its frames.
    control: bool,
    buffer: Vec<u8>,
    /// Everything before this has been sent.
    start: usize,
    entries: VecDeque<Entry>,
    /// The number of the last entry that was added.
    last: u64,
    /// No entry expires before this.
    earliest: Instant,
}

impl Queue {
    pub(super) fn new(control: bool) -> Self {
        Queue {
            control,
            buffer: Vec::new(),
            start: 0,
            entries: VecDeque::new(),
            last: 0,
            earliest: Instant::NEVER,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Encodes an envelope after the last entry without adding it, and returns its size. One of [`Queue::commit`],
    /// [`Queue::discard`] and [`Queue::take`] must follow.
    pub(super) fn encode(&mut self, now: Instant, envelope: &Envelope) -> usize {
        let before = self.buffer.len();
        envelope.encode(now, &mut self.buffer);
        self.buffer.len() - before
    }

    /// Adds the encoded envelope as an entry.
    pub(super) fn commit(&mut self, size: usize, deadline: Instant) {
        self.last += 1;
        self.entries.push_back(Entry {
            number: self.last,
            size,
            deadline,
        });
        self.earliest = self.earliest.min(deadline);
    }

    /// The number of the last entry that was added; 0 if there was none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether this entry and all before it have been sent or dropped.
    pub(super) fn has_passed(&self, number: u64) -> bool {
        self.entries.front().is_none_or(|first| first.number > number)
    }

    /// Discards the encoded envelope.
    pub(super) fn discard(&mut self, size: usize) {
        self.buffer.truncate(self.buffer.len() - size);
    }

    /// Removes and returns the encoded envelope.
    pub(super) fn take(&mut self, size: usize) -> Vec<u8> {
        let encoded = self.buffer.split_off(self.buffer.len() - size);
        self.compact();
        encoded
    }

    /// The size of the first entry that has not expired; those before it are removed and counted.
    pub(super) fn front(&mut self, now: Instant, expired: &mut u64) -> Option<usize> {
        while let Some(entry) = self.entries.front() {
            if entry.deadline > now {
                return Some(entry.size);
            }
            self.start += entry.size;
            self.entries.pop_front();
            *expired += 1;
        }
        None
    }

    /// Moves the first entry into a batch.
    pub(super) fn pop_into(&mut self, batch: &mut BatchWriter, now: Instant) {
        let entry = self.entries.pop_front().expect("there is a first entry");
        let encoded = &self.buffer[self.start..self.start + entry.size];
        stamp_deadline(batch.envelope(self.control, encoded), now, entry.deadline);
        self.start += entry.size;
    }

    /// Frees the space of entries that were removed; call it after a series of `pop_into`.
    pub(super) fn compact(&mut self) {
        if self.entries.is_empty() {
            self.earliest = Instant::NEVER;
        }
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_CAPACITY);
            self.start = 0;
        } else if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// Whether entries may have expired.
    pub(super) fn may_have_expired(&self, now: Instant) -> bool {
        self.earliest <= now
    }

    /// Removes all expired entries and counts them.
    pub(super) fn prune(&mut self, now: Instant) -> u64 {
        if !self.may_have_expired(now) {
            return 0;
        }
        let before = self.entries.len();
        let mut kept = Vec::with_capacity(self.bytes());
        let mut at = self.start;
        let mut earliest = Instant::NEVER;
        self.entries.retain(|entry| {
            let bytes = &self.buffer[at..at + entry.size];
            at += entry.size;
            let alive = entry.deadline > now;
            if alive {
                kept.extend_from_slice(bytes);
                earliest = earliest.min(entry.deadline);
            }
            alive
        });
        self.buffer = kept;
        self.start = 0;
        self.earliest = earliest;
        (before - self.entries.len()) as u64
    }

    /// Removes everything and counts it.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.entries.len() as u64;
        *self = Queue::new(self.control);
        count
    }
}
