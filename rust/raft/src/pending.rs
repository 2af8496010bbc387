//! Pending requests: proposals wait for the entry at their index, reads for their read index to be applied.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::time::Instant;

use crate::event::{ProposeError, QueryError, ReadRequest};
use crate::sessions::{Answer, SessionError};
use crate::types::{LogIndex, LogPosition, Term};

/// The timer that checks deadlines.
pub const DEADLINE_TIMER: u64 = 1;
/// Its interval while requests are pending.
const DEADLINE_INTERVAL: Duration = Duration::from_millis(20);

/// The result of a pending request. Reads that can be answered are returned by
/// [`PendingRequests::take_ready`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resolved<A> {
    /// A proposal has completed.
    Proposed {
        /// The proposal.
        id: u64,
        /// Its position and answer, or the error.
        result: Result<(LogPosition, Answer<A>), ProposeError>,
    },
    /// A read has failed.
    NotRead {
        /// The read.
        id: u64,
        /// The reason.
        error: QueryError,
    },
}

/// The pending requests of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PendingRequests {
    /// Proposals by position, with their deadlines.
    proposals: BTreeMap<(LogIndex, Term), (u64, Instant)>,
    queries: BTreeMap<u64, ReadRequest>,
    /// Reads that can be answered once everything up to the index is applied.
    ready: BTreeMap<LogIndex, Vec<u64>>,
    armed: bool,
}

impl PendingRequests {
    // ---- proposals ----

    /// Adds proposals, with their deadlines, whose entries begin at `first`.
    pub fn add_proposals(&mut self, first: LogPosition, waiting: Vec<(u64, Instant)>) {
        let indexes = (first.index.0..).map(LogIndex);
        let places = indexes.map(|index| (index, first.term));
        self.proposals.extend(places.zip(waiting));
    }

    /// An entry is committed, with this answer if it is a command: resolves the proposals at its index.
    pub fn committed<A: Clone>(
        &mut self,
        position: LogPosition,
        answer: Option<&Result<Answer<A>, SessionError>>,
        resolved: &mut Vec<Resolved<A>>,
    ) {
        while let Some(entry) = self.proposals.first_entry()
            && entry.key().0 <= position.index
        {
            let ((_, term), (id, _)) = entry.remove_entry();
            let result = match answer {
                Some(answer) if term == position.term => answer
                    .clone()
                    .map(|answer| (position, answer))
                    .map_err(ProposeError::Session),
                _ => Err(ProposeError::NotCommitted),
            };
            resolved.push(Resolved::Proposed { id, result });
        }
    }

    /// A snapshot replaced the entries up to here: the outcome of proposals there is unknown.
    pub fn snapshot_installed<A>(&mut self, through: LogIndex, resolved: &mut Vec<Resolved<A>>) {
        while let Some(entry) = self.proposals.first_entry()
            && entry.key().0 <= through
        {
            let (id, _) = entry.remove();
            let result = Err(ProposeError::OutcomeUnknown);
            resolved.push(Resolved::Proposed { id, result });
        }
    }

    // ---- reads ----

    /// Adds a read that waits for its read index.
    pub fn add_read(&mut self, query: ReadRequest) {
        self.queries.insert(query.id, query);
    }

    /// These reads can be answered once everything up to `index` is applied.
    pub fn reads_ready(&mut self, ids: Vec<u64>, index: LogIndex) {
        self.ready.entry(index).or_default().extend(ids);
    }

    /// Takes the reads that can be answered now.
    pub fn take_ready(&mut self, applied: LogIndex) -> Vec<ReadRequest> {
        let mut taken = Vec::new();
        while let Some(entry) = self.ready.first_entry()
            && *entry.key() <= applied
        {
            let ids = entry.remove();
            taken.extend(ids.iter().filter_map(|id| self.queries.remove(id)));
        }
        taken
    }

    /// These reads fail.
    pub fn fail_reads<A>(&mut self, ids: Vec<u64>, error: QueryError, resolved: &mut Vec<Resolved<A>>) {
        for id in ids {
            if self.queries.remove(&id).is_some() {
                resolved.push(Resolved::NotRead { id, error });
            }
        }
    }

    /// The server stops: its proposals may be committed elsewhere, and no request is answered here any more.
    pub fn fail_all<A>(&mut self, resolved: &mut Vec<Resolved<A>>) {
        for (id, _) in std::mem::take(&mut self.proposals).into_values() {
            let result = Err(ProposeError::OutcomeUnknown);
            resolved.push(Resolved::Proposed { id, result });
        }
        let ids = self.queries.keys().copied().collect();
        self.fail_reads(ids, QueryError::NotLeader { leader: None }, resolved);
    }

    // ---- deadlines ----

    /// When to check deadlines ([`DEADLINE_TIMER`]), if requests are pending and no timer is set.
    pub fn arm(&mut self, now: Instant) -> Option<Instant> {
        let waiting = !self.proposals.is_empty() || !self.queries.is_empty();
        if !waiting || self.armed {
            return None;
        }
        self.armed = true;
        Some(now + DEADLINE_INTERVAL)
    }

    /// Resolves requests whose deadline has passed; the outcome of proposals is unknown.
    pub fn expire<A>(&mut self, now: Instant, resolved: &mut Vec<Resolved<A>>) {
        self.armed = false;
        self.proposals.retain(|_, (id, deadline)| {
            let late = *deadline <= now;
            if late {
                let result = Err(ProposeError::OutcomeUnknown);
                resolved.push(Resolved::Proposed { id: *id, result });
            }
            !late
        });
        let late = self.queries.values().filter(|query| query.deadline <= now);
        let late: Vec<u64> = late.map(|query| query.id).collect();
        self.fail_reads(late, QueryError::TimedOut, resolved);
    }
}
