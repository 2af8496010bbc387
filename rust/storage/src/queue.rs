//! Group commit: which pending requests share the next sync, and the completions when it is done.
//!
//! A sync costs the same for one request as for hundreds, so all requests that are pending while one batch is being
//! committed go into the next: group commit, without lingering. The queue is pure: the storage thread drives it in a node,
//! the simulator in virtual time.
//!
//! ```text
//! loop: push(request)*  ->  next_batch() = Some(ops)  ->  commit them  ->  finish(outcome) = completions
//! ```
//!
//! * One batch is in flight at a time: [`next_batch`](CommitQueue::next_batch) returns `None` until
//!   [`finish`](CommitQueue::finish).
//! * A batch holds at most [`Limits::batch_bytes`], counted by [`Limits::weight`]; a larger request forms its own batch.
//! * Urgent requests come first, then normal, then bulk; within a priority, first come, first served. Each pending
//!   priority gets a share of the batch, so that none starves. An owner whose requests must keep their order gives them
//!   the same priority.
//! * A request is in one batch, whole, unless it is bulk: bulk requests are split, between operations, into slices.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::store::{JournalOp, Priority};

use crate::store::op_bytes;

/// Operations to make durable, and their owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The owner. Opaque to the queue; completions are grouped by it.
    pub owner: u32,
    /// The owner's id of the request. Opaque to the queue.
    pub token: u64,
    /// The priority.
    pub priority: Priority,
    /// The operations, which become durable together unless the priority is [`Priority::Bulk`].
    pub ops: Vec<JournalOp>,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request is durable.
    Durable,
    /// No space: nothing was written (of a bulk request: not all of it).
    Full,
}

/// The requests of one owner that completed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Completion {
    /// The owner.
    pub owner: u32,
    /// Its tokens, in the order of the batch.
    pub tokens: Vec<u64>,
    /// Their outcome.
    pub outcome: Outcome,
}

/// The sizes that bound a queue, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The maximum size of a batch, except for a single larger request.
    pub batch_bytes: usize,
    /// The maximum size of a slice of bulk requests in one batch.
    pub slice_bytes: usize,
    /// The least that a row or an entry counts. Each costs the committing thread about a third of a microsecond, however
    /// small: with 160 bytes, a batch of 1 MiB takes about 2 ms, which bounds the wait of an urgent request.
    pub row_bytes: usize,
}

impl Limits {
    /// The weight of an operation: its bytes, or the minimum of its rows if that is more.
    pub fn weight(&self, op: &JournalOp) -> usize {
        let rows = match op {
            JournalOp::Write(writes) => writes.len(),
            _ => 1,
        };
        op_bytes(op).max(rows * self.row_bytes)
    }

    /// The weight of a request.
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
struct Pending {
    owner: u32,
    token: u64,
    bytes: usize,
    ops: VecDeque<JournalOp>,
}

impl Pending {
    fn new(request: Request, limits: &Limits) -> Self {
        let bytes = limits.request_weight(&request);
        Pending {
            owner: request.owner,
            token: request.token,
            bytes,
            ops: request.ops.into(),
        }
    }
}

/// Requests that wait for a commit. The module documentation defines the order of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitQueue {
    limits: Limits,
    urgent: VecDeque<Pending>,
    normal: VecDeque<Pending>,
    bulk: VecDeque<Pending>,
    /// Bytes of all pending requests, without the batch in flight.
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

    /// Adds a request. The queue is unbounded: admission and the windows of replication bound the requests in a node.
    pub fn push(&mut self, request: Request) {
        let lane = match request.priority {
            Priority::Urgent => &mut self.urgent,
            Priority::Normal => &mut self.normal,
            Priority::Bulk => &mut self.bulk,
        };
        let pending = Pending::new(request, &self.limits);
        self.queued_bytes += pending.bytes;
        lane.push_back(pending);
    }

    /// Bytes that are pending or being committed.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes + self.in_flight_bytes()
    }

    /// Whether nothing is pending or in flight.
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

    /// The operations to commit next; `None` if nothing is pending or a batch is in flight.
    pub fn next_batch(&mut self) -> Option<Vec<JournalOp>> {
        if self.in_flight.is_some() || self.is_empty() {
            return None;
        }
        let limit = self.limits.batch_bytes;
        let slice = self.limits.slice_bytes;
        let for_bulk = if self.bulk.is_empty() { 0 } else { slice };
        let for_normal = if self.normal.is_empty() { 0 } else { limit / 4 };
        let mut batch = Batch::default();
        // A priority that was passed over last time, because a large request left no room, goes first now.
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

    /// Completes the batch in flight; returns the completions in the order of owners.
    ///
    /// # Panics
    /// If no batch is in flight.
    pub fn finish(&mut self, outcome: Outcome) -> Vec<Completion> {
        let mut batch = self.in_flight.take().expect("a batch is in flight");
        if outcome == Outcome::Full
            && let Some(partial) = batch.partial
        {
            // The rest of a bulk request is dropped without this slice.
            let rest = self
                .bulk
                .pop_front()
                .expect("the rest of a split request is first");
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

/// A batch under construction.
#[derive(Default)]
struct Batch {
    in_flight: InFlight,
    ops: Vec<JournalOp>,
}

impl Batch {
    /// Whether `bytes` more stay within `limit`. The first request of a batch may have any size.
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.in_flight.bytes + bytes <= limit
            || (self.in_flight.completes.is_empty() && self.in_flight.partial.is_none())
    }

    /// Moves the first request of the lane into the batch if there is room; returns whether it did.
    fn take_one(&mut self, lane: &mut VecDeque<Pending>, limit: usize) -> bool {
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

    /// Moves requests of the lane into the batch while there is room; returns whether it moved any.
    fn take_whole(&mut self, lane: &mut VecDeque<Pending>, limit: usize) -> bool {
        let mut any = false;
        while self.take_one(lane, limit) {
            any = true;
        }
        any
    }

    /// Moves operations of the lane into the batch, up to a slice, or one larger operation if the batch has room.
    fn take_slice(&mut self, lane: &mut VecDeque<Pending>, limits: &Limits) -> bool {
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
