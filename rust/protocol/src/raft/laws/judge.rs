//! What must hold after every step, whatever happened. The names are those of Figure 3.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::ids::NodeId;
use crate::raft::alphabet::{ProposeError, ReadLevel};
use crate::raft::entry::{Entry, EntryKind};
use crate::raft::lab::{Happening, Lab, Proposed, Queried};
use crate::raft::log::Log;
use crate::raft::sessions::{Answer, Request, SessionId, request_of};
use crate::raft::types::{LogIndex, LogPosition, Term};

/// Why a run is no good.
pub(super) type Verdict = Result<(), String>;

/// A command in a session: which one.
pub(super) type Call = (SessionId, u64);

/// What was asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Command(Request),
    /// With the last entry that it must at least see.
    Read(ReadLevel, LogIndex),
}

/// What is known about a run so far.
#[derive(Default)]
pub(super) struct Judge {
    /// Who led in each term.
    leaders: BTreeMap<Term, NodeId>,
    /// The entries that the leader of each term has been seen with.
    led: BTreeMap<Term, BTreeMap<LogIndex, Term>>,
    /// What was committed, and the latest term that any server can have committed it in.
    committed: BTreeMap<LogIndex, (Entry, Term)>,
    /// The state of the state machine after each entry.
    states: BTreeMap<LogIndex, u64>,
    asked: BTreeMap<u64, Asked>,
    /// Commands that are said not to have been executed, and never to be.
    denied: Vec<Bytes>,
    /// What each command in a session was answered.
    answers: BTreeMap<Call, Bytes>,
    /// The last entry that a client knows to be committed.
    pub(super) acknowledged: LogIndex,
    /// The sessions that clients have opened.
    pub(super) sessions: Vec<SessionId>,
    /// How many commands were executed, as far as their proposers know, and how many reads were answered.
    pub(super) done: (u64, u64),
}

impl Judge {
    /// A client is about to ask for something, under the number that the lab will give it.
    pub(super) fn asked(&mut self, operation: u64, what: Asked) {
        self.asked.insert(operation, what);
    }

    /// Looks at everything after a step.
    pub(super) fn look(&mut self, lab: &mut Lab) -> Verdict {
        for happening in std::mem::take(&mut lab.happenings) {
            match happening {
                Happening::Proposed { operation, result } => self.proposed(operation, result)?,
                Happening::Queried { operation, result } => self.queried(operation, result)?,
                _ => {}
            }
        }
        for node in lab.nodes() {
            self.server(lab, node)?;
        }
        self.log_matching(lab)
    }

    fn server(&mut self, lab: &Lab, node: NodeId) -> Verdict {
        let Some(group) = lab.group(node) else {
            return Ok(());
        };
        if let Some(why) = group.broken() {
            return Err(format!("{node} cannot start: {why}"));
        }
        let (Some(raft), Some(state)) = (group.raft(), group.state()) else {
            return Ok(());
        };
        self.committed(node, raft.term(), raft.log())?;
        if raft.is_leader() {
            self.election_safety(raft.term(), node)?;
            self.leader_append_only(raft.term(), raft.log())?;
            self.leader_completeness(raft.term(), raft.log())?;
        }
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let hash = hasher.finish();
        let known = *self.states.entry(state.applied()).or_insert(hash);
        if known != hash {
            return Err(format!(
                "state machine safety: {node} has another state after {}",
                state.applied()
            ));
        }
        match state.machine().repeated().next() {
            Some(command) => Err(format!("{node} has executed {command:?} more than once")),
            None => Ok(()),
        }
    }

    /// At most one leader in each term.
    fn election_safety(&mut self, term: Term, node: NodeId) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!("election safety: {first} and {node} both lead in {term}"))
    }

    /// A leader never overwrites or removes an entry of its own log.
    fn leader_append_only(&mut self, term: Term, log: &Log) -> Verdict {
        let led = self.led.entry(term).or_default();
        for (index, before) in led.iter() {
            let now = log.term_at(*index);
            if *index > log.base().index && now != Some(*before) {
                return Err(format!(
                    "leader append-only: entry {index} of the leader of {term} has changed"
                ));
            }
        }
        led.extend(
            log.range(log.base().index.next())
                .map(|entry| (entry.index, entry.term)),
        );
        Ok(())
    }

    /// If two logs have an entry of the same index and term, they are the same up to there.
    fn log_matching(&self, lab: &Lab) -> Verdict {
        let raft = |node: &NodeId| lab.group(*node).and_then(|group| group.raft());
        let logs: Vec<&Log> = lab
            .nodes()
            .iter()
            .filter_map(raft)
            .map(|raft| raft.log())
            .collect();
        for (place, one) in logs.iter().enumerate() {
            for other in &logs[place + 1..] {
                let mut index = one.last().index.min(other.last().index);
                let first = one.base().index.max(other.base().index);
                let mut same = false;
                while index > first {
                    same |= one.term_at(index) == other.term_at(index);
                    if same && one.entry(index) != other.entry(index) {
                        return Err(format!(
                            "log matching: entry {index} differs before one that is the same"
                        ));
                    }
                    index = index.previous();
                }
            }
        }
        Ok(())
    }

    /// What is committed is committed everywhere: no other entry ever has its index.
    fn committed(&mut self, node: NodeId, term: Term, log: &Log) -> Verdict {
        let committed = |entry: &&Entry| entry.index <= log.commit();
        for entry in log.range(log.base().index.next()).take_while(committed) {
            let known = self
                .committed
                .entry(entry.index)
                .or_insert_with(|| (entry.clone(), term));
            if known.0 != *entry {
                let (known, found) = (known.0.position(), entry.position());
                return Err(format!(
                    "state machine safety: {node} has committed {found}, another {known}"
                ));
            }
            known.1 = known.1.min(term);
        }
        Ok(())
    }

    /// What was committed in a term is in the log of the leader of every later term.
    fn leader_completeness(&self, term: Term, log: &Log) -> Verdict {
        for (entry, committed_in) in self.committed.values() {
            let has = entry.index <= log.base().index || log.matches(entry.position());
            if term > *committed_in && !has {
                let position = entry.position();
                return Err(format!(
                    "leader completeness: the leader of {term} lacks {position}, committed in {committed_in}"
                ));
            }
        }
        Ok(())
    }

    fn proposed(&mut self, operation: u64, result: Proposed) -> Verdict {
        let Some(Asked::Command(request)) = self.asked.remove(&operation) else {
            return Err(format!("op{operation} was answered twice"));
        };
        match result {
            Ok((position, answer)) => self.acknowledged(position, &request, answer),
            Err(ProposeError::Refused(_) | ProposeError::NotCommitted) => {
                if let Request::Plain(command) = request {
                    self.denied.push(command);
                }
                Ok(())
            }
            Err(ProposeError::OutcomeUnknown | ProposeError::Session(_)) => Ok(()),
        }
    }

    fn acknowledged(&mut self, position: LogPosition, request: &Request, answer: Answer) -> Verdict {
        self.done.0 += 1;
        self.acknowledged = self.acknowledged.max(position.index);
        match (request, answer) {
            (_, Answer::Opened(session)) => self.sessions.push(session),
            (
                Request::InSession {
                    session, sequence, ..
                },
                Answer::Done(answer),
            ) => {
                let first = self
                    .answers
                    .entry((*session, *sequence))
                    .or_insert_with(|| answer.clone());
                if *first != answer {
                    return Err(format!(
                        "{session:?}#{sequence} was answered {first:?}, then {answer:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn queried(&mut self, operation: u64, result: Queried) -> Verdict {
        let Some(Asked::Read(level, floor)) = self.asked.remove(&operation) else {
            return Err(format!("op{operation} was answered twice"));
        };
        let Ok(read) = result else {
            return Ok(());
        };
        self.done.1 += 1;
        if level == ReadLevel::Stale {
            return Ok(());
        }
        if read.applied < floor {
            return Err(format!(
                "op{operation} has read {}, but {floor} was acknowledged before",
                read.applied
            ));
        }
        self.acknowledged = self.acknowledged.max(read.applied);
        Ok(())
    }

    /// At the end: what was said not to have been executed was not.
    pub(super) fn end(&self) -> Verdict {
        for (entry, _) in self.committed.values() {
            if let EntryKind::Command(command) = &entry.kind
                && let Ok(Request::Plain(command)) = request_of(command)
                && self.denied.contains(&command)
            {
                return Err(format!(
                    "{command:?} was executed, and its proposer told that it never would be"
                ));
            }
        }
        Ok(())
    }
}
