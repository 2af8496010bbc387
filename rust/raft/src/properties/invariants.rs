//! What must hold after every step, whatever happened: the properties of Figure 3, and what clients were told.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use quorate_checker::figure3::{Figure3, Verdict};
use quorate_core::ids::NodeId;

use crate::action::Notice;
use crate::entry::{Entry, EntryKind};
use crate::event::{ProposeError, ReadLevel};
use crate::sessions::{Answer, Logged, Request, SessionId};
use crate::testing::{Cluster, Group as _, Output, Proposed, Queried, Seen, TraceEvent};
use crate::types::{LogIndex, LogPosition};

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
pub(super) struct Invariants {
    figure3: Figure3<NodeId, Entry>,
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

impl Invariants {
    /// A client is about to ask for something, under the number that the cluster will give it.
    pub(super) fn asked(&mut self, operation: u64, what: Asked) {
        self.asked.insert(operation, what);
    }

    /// Looks at everything after a step.
    pub(super) fn look(&mut self, cluster: &mut Cluster) -> Verdict {
        for event in std::mem::take(&mut cluster.trace) {
            match event {
                TraceEvent::Output(_, Output::Proposed { operation, result }) => {
                    self.proposed(operation, result)?;
                }
                TraceEvent::Output(_, Output::Queried { operation, result }) => {
                    self.queried(operation, result)?;
                }
                // Nobody lies here: what no server can have sent, a broken one has.
                TraceEvent::Output(node, Output::Notice(Notice::MessageRejected { from, reason })) => {
                    return Err(format!("{node} rejects a message of {from}: {reason}"));
                }
                _ => {}
            }
        }
        for node in cluster.names() {
            self.server(cluster, node)?;
        }
        let servers = cluster.nodes.keys();
        let servers: Vec<Seen> = servers
            .filter_map(|node| Some(Seen(*node, cluster.raft(*node)?)))
            .collect();
        self.figure3.look_closely(&servers)
    }

    fn server(&mut self, cluster: &Cluster, node: NodeId) -> Verdict {
        let Some(group) = cluster.group(node) else {
            return Ok(());
        };
        if let Some(why) = group.broken() {
            return Err(format!("{node} cannot start: {why}"));
        }
        let (Some(raft), Some(state)) = (group.raft(), group.state()) else {
            return Ok(());
        };
        self.figure3.look(&Seen(node, raft))?;
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

    /// A server is about to start, or to be replaced.
    pub(super) fn restarted(&mut self, node: NodeId) {
        self.figure3.restarted(node);
    }

    /// At the end: what was said not to have been executed was not.
    pub(super) fn end(&self) -> Verdict {
        for entry in self.figure3.commits().entries() {
            if let EntryKind::Command(command) = &entry.kind
                && let Ok(Request::Plain(command)) =
                    Logged::<Bytes>::decode(command).map(|logged| logged.request)
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
