//! Who waits for what: proposals for the entry at their place, queries for their read index to be applied.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::time::Instant;

use crate::event::{Effect, ProposeError, QueryError, Question};
use crate::sessions::{Answer, SessionError};
use crate::types::{LogIndex, LogPosition, Term};

/// The timer that looks for passed deadlines.
pub const SWEEP_TIMER: u64 = 1;
/// How often it does while somebody waits.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

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
    pub fn committed(
        &mut self,
        position: LogPosition,
        answer: Option<&Result<Answer, SessionError>>,
        effects: &mut Vec<Effect>,
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
            effects.push(Effect::Proposed { id, result });
        }
    }

    /// A snapshot took the place of the entries up to here: which ones they were is not known.
    pub fn forget(&mut self, through: LogIndex, effects: &mut Vec<Effect>) {
        while let Some(entry) = self.proposals.first_entry()
            && entry.key().0 <= through
        {
            let (id, _) = entry.remove();
            let result = Err(ProposeError::OutcomeUnknown);
            effects.push(Effect::Proposed { id, result });
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
    pub fn fail(&mut self, ids: Vec<u64>, error: QueryError, effects: &mut Vec<Effect>) {
        for id in ids {
            if self.queries.remove(&id).is_some() {
                let result = Err(error);
                effects.push(Effect::Queried { id, result });
            }
        }
    }

    /// The server stops: what it has in its log may be committed elsewhere, and nobody is answered here any more.
    pub fn end(&mut self, effects: &mut Vec<Effect>) {
        for (id, _) in std::mem::take(&mut self.proposals).into_values() {
            let result = Err(ProposeError::OutcomeUnknown);
            effects.push(Effect::Proposed { id, result });
        }
        let ids = self.queries.keys().copied().collect();
        self.fail(ids, QueryError::NotLeader { leader: None }, effects);
    }

    // ---- deadlines ----

    /// Sets the timer if somebody waits.
    pub fn arm(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let somebody = !self.proposals.is_empty() || !self.queries.is_empty();
        if somebody && !self.sweeping {
            self.sweeping = true;
            let at = now + SWEEP_EVERY;
            effects.push(Effect::SetTimer { id: SWEEP_TIMER, at });
        }
    }

    /// Whoever has waited long enough is told that nothing is known.
    pub fn sweep(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.sweeping = false;
        self.proposals.retain(|_, (id, deadline)| {
            let late = *deadline <= now;
            if late {
                let result = Err(ProposeError::OutcomeUnknown);
                effects.push(Effect::Proposed { id: *id, result });
            }
            !late
        });
        let late = self.queries.values().filter(|query| query.deadline <= now);
        let late: Vec<u64> = late.map(|query| query.id).collect();
        self.fail(late, QueryError::TimedOut, effects);
    }
}
