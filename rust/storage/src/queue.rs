//! The batching of commits: which waiting requests share the next sync, and whom to tell when it is done.
//!
//! A sync costs the same for one request as for hundreds, so whatever waits while one batch is being committed goes
//! into the next: group commit, without lingering. The queue is pure: the storage thread drives it in a node, the
//! simulator drives it in virtual time.
//!
//! ```text
//! loop: push(request)*  ->  next_batch() = Some(ops)  ->  commit them  ->  finish(outcome) = completions
//! ```
//!
//! * One batch is in flight at a time: [`next_batch`](CommitQueue::next_batch) answers `None` until
//!   [`finish`](CommitQueue::finish).
//! * A batch holds at most [`Limits::batch_bytes`], counted by [`Limits::weight`]; a single larger request goes alone.
//! * Urgent requests come first, then normal, then bulk; within a priority, first come, first served. Each waiting
//!   priority is kept a share of the batch, so that none starves. An owner whose requests must keep their order
//!   gives them the same priority.
//! * A request is in one batch, whole, unless it is bulk: that one is cut, between operations, into slices.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::store::{JournalOp, Priority};

use crate::store::op_bytes;

/// Something to make durable, and whom to tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks. Opaque to the queue; completions are grouped by it.
    pub owner: u32,
    /// The owner's name for the request. Opaque to the queue.
    pub token: u64,
    /// What goes first.
    pub priority: Priority,
    /// What becomes durable: together, unless the priority is [`Priority::Bulk`].
    pub ops: Vec<JournalOp>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is durable.
    Durable,
    /// No space: nothing of it was written (of a bulk request: not all of it).
    Full,
}

/// The requests of one owner that ended together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Completion {
    /// Who asked.
    pub owner: u32,
    /// Its tokens, in the order of the batch.
    pub tokens: Vec<u64>,
    /// How they ended.
    pub outcome: Outcome,
}

/// The sizes that bound a queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The most that a batch holds, except for a single larger request.
    pub batch_bytes: usize,
    /// The most of a bulk request that goes into one batch.
    pub slice_bytes: usize,
    /// What a row or an entry counts at least. However small it is, it costs the committing thread a third of a
    /// microsecond or so: with 160 bytes, a batch of 1 MiB is about 2 ms of work, and so is what an urgent request waits for.
    pub row_bytes: usize,
}

impl Limits {
    /// What an operation counts: its bytes, or its rows' share of the work if that is more.
    pub fn weight(&self, op: &JournalOp) -> usize {
        let rows = match op {
            JournalOp::Write(writes) => writes.len(),
            _ => 1,
        };
        op_bytes(op).max(rows * self.row_bytes)
    }

    /// What a request counts.
    pub fn request_weight(&self, request: &Request) -> usize {
        request.ops.iter().map(|op| self.weight(op)).sum()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_bytes: 1 << 20,
            slice_bytes: 128 << 10,
            row_bytes: 160,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    owner: u32,
    token: u64,
    bytes: usize,
    ops: VecDeque<JournalOp>,
}

impl Waiting {
    fn new(request: Request, limits: &Limits) -> Self {
        let bytes = limits.request_weight(&request);
        Waiting {
            owner: request.owner,
            token: request.token,
            bytes,
            ops: request.ops.into(),
        }
    }
}

/// Requests that wait for a commit. See the module's text for the order of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitQueue {
    limits: Limits,
    urgent: VecDeque<Waiting>,
    normal: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
    /// Bytes of everything that waits, without the batch in flight.
    queued_bytes: usize,
    in_flight: Option<InFlight>,
    normal_passed_over: bool,
    bulk_passed_over: bool,
}

/// The batch that is being committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct InFlight {
    /// Requests that are durable once the batch is.
    completes: Vec<(u32, u64)>,
    /// The bulk request of which the batch holds a slice, but not the last one.
    partial: Option<(u32, u64)>,
    bytes: usize,
}

impl CommitQueue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        CommitQueue {
            limits,
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            bulk: VecDeque::new(),
            queued_bytes: 0,
            in_flight: None,
            normal_passed_over: false,
            bulk_passed_over: false,
        }
    }

    /// Adds a request. All are taken: what may be on its way through a node is bounded where requests are admitted, and by the
    /// windows of replication.
    pub fn push(&mut self, request: Request) {
        let lane = match request.priority {
            Priority::Urgent => &mut self.urgent,
            Priority::Normal => &mut self.normal,
            Priority::Bulk => &mut self.bulk,
        };
        let waiting = Waiting::new(request, &self.limits);
        self.queued_bytes += waiting.bytes;
        lane.push_back(waiting);
    }

    /// Bytes that wait or are being committed.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight_bytes()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_none() && self.urgent.is_empty() && self.normal.is_empty() && self.bulk.is_empty()
    }

    /// Requests that the batch in flight holds, whole or in part.
    pub fn in_flight_requests(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |batch| {
            batch.completes.len() + usize::from(batch.partial.is_some())
        })
    }

    /// Bytes of the batch in flight.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |batch| batch.bytes)
    }

    /// The operations to commit next; `None` if nothing waits or a batch is in flight.
    pub fn next_batch(&mut self) -> Option<Vec<JournalOp>> {
        if self.in_flight.is_some() || self.is_empty() {
            return None;
        }
        let limit = self.limits.batch_bytes;
        let slice = self.limits.slice_bytes;
        let for_bulk = if self.bulk.is_empty() { 0 } else { slice };
        let for_normal = if self.normal.is_empty() { 0 } else { limit / 4 };
        let mut batch = Batch::default();
        // Who was passed over last time, because something large left no room, goes first now.
        let mut bulk_done = false;
        if self.bulk_passed_over {
            bulk_done = batch.take_slice(&mut self.bulk, &self.limits);
        }
        let mut normal_done = false;
        if self.normal_passed_over {
            normal_done = batch.take_one(&mut self.normal, limit);
        }
        batch.take_whole(&mut self.urgent, limit.saturating_sub(for_normal + for_bulk));
        normal_done |= batch.take_whole(&mut self.normal, limit.saturating_sub(for_bulk));
        if !bulk_done {
            bulk_done = batch.take_slice(&mut self.bulk, &self.limits);
        }
        self.normal_passed_over = !normal_done && !self.normal.is_empty();
        self.bulk_passed_over = !bulk_done && !self.bulk.is_empty();
        self.queued_bytes -= batch.in_flight.bytes;
        self.in_flight = Some(batch.in_flight);
        Some(batch.ops)
    }

    /// Ends the batch in flight and says whom to tell, in the order of owners.
    ///
    /// # Panics
    /// If no batch is in flight.
    pub fn finish(&mut self, outcome: Outcome) -> Vec<Completion> {
        let mut batch = self.in_flight.take().expect("a batch is in flight");
        if outcome == Outcome::Full
            && let Some(partial) = batch.partial
        {
            // The rest of a bulk request is pointless without this slice.
            let rest = self
                .bulk
                .pop_front()
                .expect("the rest of a cut request waits first");
            self.queued_bytes -= rest.bytes;
            batch.completes.push(partial);
        }
        let mut by_owner: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (owner, token) in batch.completes {
            by_owner.entry(owner).or_default().push(token);
        }
        by_owner
            .into_iter()
            .map(|(owner, tokens)| Completion {
                owner,
                tokens,
                outcome,
            })
            .collect()
    }
}

/// A batch that is being put together.
#[derive(Default)]
struct Batch {
    in_flight: InFlight,
    ops: Vec<JournalOp>,
}

impl Batch {
    /// Whether `bytes` more stay within `limit`. The first request of a batch goes at any size.
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.in_flight.bytes + bytes <= limit
            || (self.in_flight.completes.is_empty() && self.in_flight.partial.is_none())
    }

    /// Moves the first request of the lane into the batch if there is room, and says whether it did.
    fn take_one(&mut self, lane: &mut VecDeque<Waiting>, limit: usize) -> bool {
        if !lane.front().is_some_and(|next| self.has_room(next.bytes, limit)) {
            return false;
        }
        let Some(next) = lane.pop_front() else {
            return false;
        };
        self.in_flight.bytes += next.bytes;
        self.in_flight.completes.push((next.owner, next.token));
        self.ops.extend(next.ops);
        true
    }

    /// Moves requests of the lane into the batch while there is room, and says whether any was.
    fn take_whole(&mut self, lane: &mut VecDeque<Waiting>, limit: usize) -> bool {
        let mut any = false;
        while self.take_one(lane, limit) {
            any = true;
        }
        any
    }

    /// Moves operations of the lane into the batch, up to a slice of them, or one larger one if the batch has room.
    fn take_slice(&mut self, lane: &mut VecDeque<Waiting>, limits: &Limits) -> bool {
        let (slice, limit) = (limits.slice_bytes, limits.batch_bytes);
        let mut taken = 0;
        while let Some(next) = lane.front_mut() {
            let taken_of_others = taken;
            while let Some(bytes) = next.ops.front().map(|op| limits.weight(op)) {
                let within_slice = taken == 0 || taken + bytes <= slice;
                let first = taken == 0 && self.has_room(bytes, limit);
                if !(within_slice && (first || self.in_flight.bytes + bytes <= limit)) {
                    if taken > taken_of_others {
                        self.in_flight.partial = Some((next.owner, next.token));
                    }
                    return taken > 0;
                }
                taken += bytes;
                next.bytes -= bytes;
                self.in_flight.bytes += bytes;
                self.ops.extend(next.ops.pop_front());
            }
            self.in_flight.completes.push((next.owner, next.token));
            lane.pop_front();
        }
        taken > 0
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
