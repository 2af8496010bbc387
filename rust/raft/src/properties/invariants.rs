//! The invariants, checked after every step: the properties of Figure 3, and the answers to clients.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use quorate_checker::figure3::{Figure3, Verdict};
use quorate_core::ids::NodeId;

use crate::action::Notice;
use crate::entry::{Entry, EntryKind};
use crate::event::{ProposeError, ReadLevel};
use crate::sessions::{Answer, Logged, Request, SessionId};
use crate::testing::{Cluster, Group as _, Observed, Output, Proposed, Queried, TraceEvent};
use crate::types::{LogIndex, LogPosition};

/// A command in a session.
pub(super) type Call = (SessionId, u64);

/// A pending operation.
#[derive(Clone, Debug)]
pub(super) enum PendingOperation {
    Command(Request),
    /// With the last entry that it must see.
    Read(ReadLevel, LogIndex),
}

/// The checker's knowledge of a run.
#[derive(Default)]
pub(super) struct Invariants {
    figure3: Figure3<NodeId, Entry>,
    /// The state of the state machine after each entry.
    states: BTreeMap<LogIndex, u64>,
    submitted: BTreeMap<u64, PendingOperation>,
    /// Commands that were reported as not executed.
    reported_failed: Vec<Bytes>,
    /// The answer to each command in a session.
    answers: BTreeMap<Call, Bytes>,
    /// The last entry that a client knows to be committed.
    pub(super) acknowledged: LogIndex,
    /// The sessions that clients have opened.
    pub(super) sessions: Vec<SessionId>,
    /// The number of commands that succeeded, and of reads.
    pub(super) done: (u64, u64),
}

impl Invariants {
    /// A client sends an operation, under the number that the cluster will give it.
    pub(super) fn submitted(&mut self, operation: u64, what: PendingOperation) {
        self.submitted.insert(operation, what);
    }

    /// Checks everything after a step.
    pub(super) fn check(&mut self, cluster: &mut Cluster) -> Verdict {
        for event in std::mem::take(&mut cluster.trace) {
            match event {
                TraceEvent::Output(_, Output::Proposed { operation, result }) => {
                    self.proposed(operation, result)?;
                }
                TraceEvent::Output(_, Output::Queried { operation, result }) => {
                    self.queried(operation, result)?;
                }
                // No server lies here: only a faulty one sends an implausible message.
                TraceEvent::Output(node, Output::Notice(Notice::MessageRejected { from, reason })) => {
                    return Err(format!("{node} rejects a message from {from}: {reason}"));
                }
                _ => {}
            }
        }
        for node in cluster.names() {
            self.server(cluster, node)?;
        }
        let servers = cluster.nodes.keys();
        let servers: Vec<Observed> = servers
            .filter_map(|node| Some(Observed(*node, cluster.raft(*node)?)))
            .collect();
        self.figure3.check_thoroughly(&servers)
    }

    fn server(&mut self, cluster: &Cluster, node: NodeId) -> Verdict {
        let Some(group) = cluster.group(node) else {
            return Ok(());
        };
        if let Some(why) = group.failure() {
            return Err(format!("{node} cannot start: {why}"));
        }
        let (Some(raft), Some(state)) = (group.raft(), group.state()) else {
            return Ok(());
        };
        self.figure3.check(&Observed(node, raft))?;
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let hash = hasher.finish();
        let known = *self.states.entry(state.applied()).or_insert(hash);
        if known != hash {
            return Err(format!(
                "state machine safety: {node} has a different state after {}",
                state.applied()
            ));
        }
        match state.machine().repeated().next() {
            Some(command) => Err(format!("{node} has executed {command:?} more than once")),
            None => Ok(()),
        }
    }

    fn proposed(&mut self, operation: u64, result: Proposed) -> Verdict {
        let Some(PendingOperation::Command(request)) = self.submitted.remove(&operation) else {
            return Err(format!("op{operation} was answered more than once"));
        };
        match result {
            Ok((position, answer)) => self.acknowledged(position, &request, answer),
            Err(ProposeError::Rejected(_) | ProposeError::NotCommitted) => {
                if let Request::Plain(command) = request {
                    self.reported_failed.push(command);
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
        let Some(PendingOperation::Read(level, floor)) = self.submitted.remove(&operation) else {
            return Err(format!("op{operation} was answered more than once"));
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
                "op{operation} read {}, but {floor} was acknowledged before",
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

    /// At the end: no command that was reported as not executed was executed.
    pub(super) fn end(&self) -> Verdict {
        for entry in self.figure3.commits().entries() {
            if let EntryKind::Command(command) = &entry.kind
                && let Ok(Request::Plain(command)) =
                    Logged::<Bytes>::decode(command).map(|logged| logged.request)
                && self.reported_failed.contains(&command)
            {
                return Err(format!(
                    "{command:?} was executed, but was reported as not executed"
                ));
            }
        }
        Ok(())
    }
}
