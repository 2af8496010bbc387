//! Who waits for what: proposals for the entry at their place, queries for their read index to be applied.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::time::Instant;

use crate::event::{ProposeError, QueryError, Question};
use crate::sessions::{Answer, SessionError};
use crate::types::{LogIndex, LogPosition, Term};

/// The timer that looks for passed deadlines.
pub const SWEEP_TIMER: u64 = 1;
/// How often it does while somebody waits.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

/// What someone who has waited is told. A read that may be answered is not here: [`PendingRequests::take_ready`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resolved<A> {
    /// What became of a proposal.
    Proposed {
        /// Whose.
        id: u64,
        /// Where it stands in the log, and what it was answered.
        result: Result<(LogPosition, Answer<A>), ProposeError>,
    },
    /// A query is not answered here.
    NotRead {
        /// Whose.
        id: u64,
        /// Why.
        error: QueryError,
    },
}

/// Those who wait for an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PendingRequests {
    /// Whose proposal stands where, and until when they wait.
    proposals: BTreeMap<(LogIndex, Term), (u64, Instant)>,
    queries: BTreeMap<u64, Question>,
    /// Queries that may be answered when everything up to there is applied.
    ready: BTreeMap<LogIndex, Vec<u64>>,
    sweeping: bool,
}

impl PendingRequests {
    // ---- proposals ----

    /// Proposals, with their deadlines, stand in the log from `first` on.
    pub fn expect(&mut self, first: LogPosition, waiting: Vec<(u64, Instant)>) {
        let indexes = (first.index.0..).map(LogIndex);
        let places = indexes.map(|index| (index, first.term));
        self.proposals.extend(places.zip(waiting));
    }

    /// This entry is committed, and was answered so if it is a command: whoever waits at its index learns
    /// what became of the proposal.
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

    /// A snapshot took the place of the entries up to here: which ones they were is not known.
    pub fn forget<A>(&mut self, through: LogIndex, resolved: &mut Vec<Resolved<A>>) {
        while let Some(entry) = self.proposals.first_entry()
            && entry.key().0 <= through
        {
            let (id, _) = entry.remove();
            let result = Err(ProposeError::OutcomeUnknown);
            resolved.push(Resolved::Proposed { id, result });
        }
    }

    // ---- queries ----

    /// A query waits for its read index.
    pub fn ask(&mut self, query: Question) {
        self.queries.insert(query.id, query);
    }

    /// These queries may be answered when everything up to `index` is applied.
    pub fn ready(&mut self, ids: Vec<u64>, index: LogIndex) {
        self.ready.entry(index).or_default().extend(ids);
    }

    /// The queries that may be answered now.
    pub fn take_ready(&mut self, applied: LogIndex) -> Vec<Question> {
        let mut taken = Vec::new();
        while let Some(entry) = self.ready.first_entry()
            && *entry.key() <= applied
        {
            let ids = entry.remove();
            taken.extend(ids.iter().filter_map(|id| self.queries.remove(id)));
        }
        taken
    }

    /// These queries are not answered here.
    pub fn fail<A>(&mut self, ids: Vec<u64>, error: QueryError, resolved: &mut Vec<Resolved<A>>) {
        for id in ids {
            if self.queries.remove(&id).is_some() {
                resolved.push(Resolved::NotRead { id, error });
            }
        }
    }

    /// The server stops: what it has in its log may be committed elsewhere, and nobody is answered here any more.
    pub fn end<A>(&mut self, resolved: &mut Vec<Resolved<A>>) {
        for (id, _) in std::mem::take(&mut self.proposals).into_values() {
            let result = Err(ProposeError::OutcomeUnknown);
            resolved.push(Resolved::Proposed { id, result });
        }
        let ids = self.queries.keys().copied().collect();
        self.fail(ids, QueryError::NotLeader { leader: None }, resolved);
    }

    // ---- deadlines ----

    /// When to look for passed deadlines ([`SWEEP_TIMER`]), if somebody waits and no timer is set.
    pub fn arm(&mut self, now: Instant) -> Option<Instant> {
        let somebody = !self.proposals.is_empty() || !self.queries.is_empty();
        if !somebody || self.sweeping {
            return None;
        }
        self.sweeping = true;
        Some(now + SWEEP_EVERY)
    }

    /// Whoever has waited long enough is told that nothing is known.
    pub fn sweep<A>(&mut self, now: Instant, resolved: &mut Vec<Resolved<A>>) {
        self.sweeping = false;
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
        self.fail(late, QueryError::TimedOut, resolved);
    }
}
