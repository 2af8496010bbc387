//! The invariants, checked after every step: of the servers, of their rows, and of the answers to clients.
//!
//! They read the groups' logs, execute committed commands in a separate [`Model`], and compare everything
//! else to it: rows must equal the model's at their marker, outcomes must be the model's, reads must have
//! seen the model at one moment, not before what was known when they began.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use quorate_checker::figure3::{Figure3, Verdict};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::store::Table;
use quorate_core::time::Instant;
use quorate_protocol::api::{LogEntry, Record, Request, Response, Stamp, View};
use quorate_protocol::shard_command::{Command, Outcome};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::entry::Entry;
use quorate_raft::event::ReadLevel;
use quorate_raft::format;
use quorate_raft::sessions::{Request as LogRequest, SessionId};
use quorate_raft::types::GroupId;
use quorate_role_testing::{Observed, Output};

use super::HASH;
use super::model::{EntryEffect, Model};
use crate::rows::{self, Marker};
use crate::shard::ownership::misdirected;
use crate::shard::testing::show::within;
use crate::shard::testing::{Cluster, Consensus as _, TraceEvent};

/// A pending request.
#[derive(Clone, Debug)]
pub(super) struct PendingOperation {
    pub(super) node: NodeId,
    pub(super) group: GroupId,
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// The last entry that a linearizable read must see.
    floor: u64,
}

/// The checker's knowledge of a group.
#[derive(Debug, Default)]
struct GroupFacts {
    model: Model,
    figure3: Figure3<NodeId, Entry>,
    /// A hash of all rows after each entry.
    states: BTreeMap<u64, u64>,
    /// The last entry whose effect a client knows.
    floor: u64,
    /// The history of `floor`: both rise.
    floors: Vec<(Instant, u64)>,
    /// The plain command that each entry was answered for.
    answered: BTreeMap<u64, u64>,
    /// Plain commands that were reported as not executed.
    reported_failed: BTreeSet<Bytes>,
    /// The same for commands in sessions, unless they are retried. An earlier attempt's outcome stays
    /// unknown.
    refused: BTreeSet<(u64, u64)>,
    in_doubt: BTreeSet<(u64, u64)>,
}

/// The checker's knowledge of a run.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    truths: BTreeMap<GroupId, GroupFacts>,
    pub(super) open: BTreeMap<u64, PendingOperation>,
    /// The answers since the last check.
    pub(super) replies: Vec<(u64, PendingOperation, Result<Response, Error>)>,
    /// The number of commands executed, as far as their clients know; of reads answered; of snapshots
    /// installed.
    pub(super) done: (u64, u64, u64),
}

impl Invariants {
    /// A client has sent a request, under this number.
    pub(super) fn submitted(
        &mut self,
        operation: u64,
        node: NodeId,
        request: Request,
        group: GroupId,
        by: Instant,
    ) {
        let truth = self.truths.entry(group).or_default();
        let floor = truth.floor;
        if let Some(call) = call(&request) {
            truth.refused.remove(&call);
        }
        let submitted = PendingOperation {
            node,
            group,
            request,
            deadline: by,
            floor,
        };
        self.open.insert(operation, submitted);
    }

    /// A node has crashed: its pending requests get no answer.
    pub(super) fn crashed(&mut self, node: NodeId) {
        self.truths
            .values_mut()
            .for_each(|truth| truth.figure3.restarted(node));
        let reason = Some("the node has crashed".to_owned());
        let lost: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, submitted)| submitted.node == node)
            .map(|(operation, _)| *operation)
            .collect();
        for operation in lost {
            let submitted = self.open.remove(&operation).expect("just found");
            let truth = self.truths.entry(submitted.group).or_default();
            truth.in_doubt.extend(call(&submitted.request));
            let error = Error::OutcomeUnknown {
                acked: 0,
                required: 2,
                reason: reason.clone(),
            };
            self.replies.push((operation, submitted, Err(error)));
        }
    }

    /// Checks everything after a step.
    pub(super) fn check(&mut self, cluster: &mut Cluster) -> Verdict {
        for group in cluster.groups() {
            let truth = self.truths.entry(group).or_default();
            for node in cluster.names() {
                let Some(shard) = cluster.shard(node, group) else {
                    continue;
                };
                if let Some(why) = shard.broken() {
                    return Err(format!("{node} cannot start: {why}"));
                }
                if let Some(raft) = shard.raft() {
                    truth.figure3.check(&Observed(node, raft))?;
                    let commits = truth.figure3.commits();
                    while let Some(entry) = commits.entry(truth.model.last() + 1) {
                        truth.model.commit(entry);
                    }
                }
            }
        }
        for event in std::mem::take(&mut cluster.trace) {
            match event {
                TraceEvent::Output(_, Output::Reply(operation, result)) => {
                    self.answered(operation, result, cluster)?;
                }
                TraceEvent::Output(_, Output::Emitted(TimelineEvent::SnapshotInstalled { .. })) => {
                    self.done.2 += 1;
                }
                _ => {}
            }
        }
        let now = Instant(cluster.now);
        let late =
            |(_, submitted): &(&u64, &PendingOperation)| submitted.deadline + Duration::from_millis(30) < now;
        match self.open.iter().find(late) {
            Some((operation, submitted)) => Err(format!(
                "op{operation} was not answered in time: {:?} at {}",
                submitted.request, submitted.node
            )),
            None => Ok(()),
        }
    }

    /// Expensive checks.
    pub(super) fn check_thoroughly(&mut self, cluster: &Cluster) -> Verdict {
        for group in cluster.groups() {
            let raft = |node: &NodeId| {
                let shard = cluster.shard(*node, group)?;
                Some(Observed(*node, shard.raft()?))
            };
            let servers: Vec<Observed> = cluster.nodes.keys().filter_map(raft).collect();
            let truth = self.truths.entry(group).or_default();
            truth.figure3.check_thoroughly(&servers)?;
            for node in cluster.names() {
                for flushed in [false, true] {
                    self.rows(cluster, node, group, flushed)?;
                }
            }
        }
        Ok(())
    }

    /// The rows are the model's at their marker; and equal, sessions included, wherever the marker is equal.
    fn rows(&mut self, cluster: &Cluster, node: NodeId, group: GroupId, flushed: bool) -> Verdict {
        let truth = self.truths.entry(group).or_default();
        let store = &cluster.nodes[&node].disk.store;
        let left;
        let contents = match flushed {
            true => {
                left = store.flushed();
                &left
            }
            false => &store.contents,
        };
        let Some(marker) = contents.value(Table::Groups, &rows::marker_key(group)) else {
            return Ok(());
        };
        let marker: Marker = format::decode("marker", marker).map_err(|error| error.to_string())?;
        let index = marker.applied.index.0;
        let text = |error: Error| error.to_string();
        let mut found = BTreeMap::new();
        for (row, value) in within(contents, &rows::records(group, None, None)) {
            let record = rows::decode_record(value).map_err(text)?;
            found.insert(
                rows::decode_record_key(row).map_err(text)?,
                (record.version, record.value),
            );
        }
        if found != truth.model.all_at(index) {
            let model = truth.model.all_at(index);
            return Err(format!(
                "rows: {node} has in {group} after {index} {found:?}, and should have {model:?}"
            ));
        }
        let entries: Vec<u64> = within(contents, &rows::entries(group, 0))
            .map(|(row, value)| rows::decode_entry(row, value).map(|entry| entry.id))
            .collect::<Result<_, _>>()
            .map_err(text)?;
        let model: Vec<u64> = truth.model.appended.range(..=index).map(|(id, _)| *id).collect();
        if entries != model {
            return Err(format!(
                "rows: {node} has after {index} the entries {entries:?}, and should have {model:?}"
            ));
        }
        let mut hasher = DefaultHasher::new();
        let initial_rows = rows::initial_rows(group);
        let all = initial_rows.start..rows::entries(group, 0).end;
        within(contents, &all).for_each(|row| row.hash(&mut hasher));
        let hash = hasher.finish();
        match *truth.states.entry(index).or_insert(hash) == hash {
            true => Ok(()),
            false => Err(format!(
                "state machine safety: {node} has different rows in {group} after {index} than another server"
            )),
        }
    }

    fn answered(
        &mut self,
        operation: u64,
        result: Result<Response, Error>,
        cluster: &mut Cluster,
    ) -> Verdict {
        let Some(submitted) = self.open.remove(&operation) else {
            return Err(format!("op{operation} was answered more than once"));
        };
        let truth = self.truths.entry(submitted.group).or_default();
        let rejection = misdirected(cluster.keyspace(), HASH, submitted.group, &submitted.request);
        let verdict = match (&submitted.request, &result) {
            (_, result) if rejection.is_some() => require(result.clone().err() == rejection, || {
                "it belongs to another group".to_owned()
            }),
            (_, Ok(response)) => truth
                .response(operation, &submitted, response, &mut self.done)
                .and_then(|()| truth.age(&submitted, response, cluster)),
            (request, Err(error)) => truth.error(request, error),
        };
        if truth.floors.last().is_none_or(|(_, floor)| *floor < truth.floor) {
            truth.floors.push((Instant(cluster.now), truth.floor));
        }
        verdict.map_err(|property| {
            format!(
                "op{operation} {:?} was answered {result:?}: {property}",
                submitted.request
            )
        })?;
        self.replies.push((operation, submitted, result));
        Ok(())
    }

    /// At the end: no command that was reported as not executed was executed.
    pub(super) fn end(&self) -> Verdict {
        for truth in self.truths.values() {
            truth.check_rejected()?;
            for request in truth.model.requests.iter().flatten() {
                if let LogRequest::Plain(command) = request
                    && truth.reported_failed.contains(&format::encode_inner(command))
                {
                    return Err(format!(
                        "{command:?} was executed, but was reported as not executed"
                    ));
                }
            }
        }
        if let Some((operation, submitted)) = self.open.first_key_value() {
            return Err(format!("op{operation} has no answer: {:?}", submitted.request));
        }
        Ok(())
    }

    /// The number of committed entries of a group.
    pub(super) fn committed(&self, group: GroupId) -> u64 {
        self.truths.get(&group).map_or(0, |truth| truth.model.last())
    }
}

fn is_linearizable(request: &Request) -> bool {
    let (Request::Read { level, .. } | Request::ReadRange { level, .. } | Request::ReadLog { level, .. }) =
        request
    else {
        return false;
    };
    *level == ReadLevel::Linearizable
}

fn require(holds: bool, property: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(property()) }
}

/// The session and number of a request.
fn call(request: &Request) -> Option<(u64, u64)> {
    match request {
        Request::Propose {
            session: Some(Stamp {
                session, sequence, ..
            }),
            ..
        } => Some((*session, *sequence)),
        _ => None,
    }
}

impl GroupFacts {
    /// No command that was definitely rejected was executed.
    fn check_rejected(&self) -> Verdict {
        let executed = |call: &&(u64, u64)| self.model.executed.contains_key(*call);
        match self.refused.iter().find(executed) {
            None => Ok(()),
            Some((session, sequence)) => Err(format!(
                "command {sequence} of session {session} was executed, but was reported as not executed"
            )),
        }
    }

    fn error(&mut self, request: &Request, error: &Error) -> Verdict {
        let Request::Propose { command, session, .. } = request else {
            let usual = matches!(
                error,
                Error::Unavailable { .. }
                    | Error::Overloaded(_)
                    | Error::ReadTimeout { .. }
                    | Error::StorageFull(_)
                    | Error::OutcomeUnknown { .. }
            );
            return require(usual, || "unexpected error".to_owned());
        };
        match (error, session) {
            (Error::OutcomeUnknown { .. }, _) => {
                self.in_doubt.extend(call(request));
                Ok(())
            }
            (Error::Unavailable { .. } | Error::Overloaded(_) | Error::StorageFull(_), None) => {
                // Values are unique; a command without one may be another client's.
                let unique = match command {
                    Command::Append { .. } => true,
                    Command::Write(writes) => writes.iter().any(|write| write.value.is_some()),
                };
                if unique {
                    self.reported_failed.insert(format::encode_inner(command));
                }
                Ok(())
            }
            (Error::Unavailable { .. } | Error::Overloaded(_) | Error::StorageFull(_), Some(_)) => {
                let call = call(request).filter(|call| !self.in_doubt.contains(call));
                self.refused.extend(call);
                self.check_rejected()
            }
            (
                Error::SessionExpired(_),
                Some(Stamp {
                    session, sequence, ..
                }),
            ) => {
                let expired = self.model.expired.contains(&(*session, *sequence));
                require(expired, || "the session has not expired".to_owned())
            }
            (Error::ConditionFailed { current, .. }, session) => {
                let failed = |outcome: &Outcome| matches!(outcome, Outcome::ConditionFailed { current: found, .. } if found == current);
                let is_true = match session {
                    Some(Stamp {
                        session, sequence, ..
                    }) => {
                        let call = (*session, *sequence);
                        self.model.executed.get(&call).is_some_and(failed)
                    }
                    None => self
                        .model
                        .requests
                        .iter()
                        .zip(&self.model.did)
                        .any(|(request, did)| {
                            let same = matches!(request, Some(LogRequest::Plain(found)) if found == command);
                            same && matches!(did, EntryEffect::Command(outcome) if failed(outcome))
                        }),
                };
                require(is_true, || "the condition did not fail like this".to_owned())
            }
            _ => Err("unexpected error".to_owned()),
        }
    }

    fn response(
        &mut self,
        operation: u64,
        submitted: &PendingOperation,
        response: &Response,
        done: &mut (u64, u64, u64),
    ) -> Verdict {
        match (&submitted.request, response) {
            (Request::Propose { command, session, .. }, Response::Committed(committed)) => {
                done.0 += 1;
                self.floor = self.floor.max(committed.index);
                let outcome = Outcome::Done {
                    index: committed.index,
                    term: committed.term,
                };
                let did = match session {
                    Some(stamp) => self.model.executed.get(&(stamp.session, stamp.sequence)),
                    None => {
                        let first = *self.answered.entry(committed.index).or_insert(operation);
                        require(first == operation, || format!("so was op{first}"))?;
                        let found = self.model.request(committed.index);
                        let same = matches!(found, Some(LogRequest::Plain(logged)) if logged == command);
                        require(same, || format!("entry {} is {found:?}", committed.index))?;
                        match self.model.did(committed.index) {
                            Some(EntryEffect::Command(outcome)) => Some(outcome),
                            _ => None,
                        }
                    }
                };
                require(did == Some(&outcome), || format!("it did {did:?}"))
            }
            (Request::OpenSession { .. }, Response::SessionOpened { session, .. }) => {
                let did = self.model.did(*session);
                require(did == Some(&EntryEffect::Opened), || format!("it did {did:?}"))
            }
            (Request::CloseSession { session, .. }, Response::Done) => {
                let close = LogRequest::Close(SessionId(*session));
                let closed = self.model.requests.contains(&Some(close));
                require(closed, || "it was not".to_owned())
            }
            (request, response) => {
                done.1 += 1;
                self.read(submitted.floor, request, response)
            }
        }
    }

    /// At some moment, not before what was known when the read began, the model matches the answer.
    fn read(&mut self, floor: u64, request: &Request, response: &Response) -> Verdict {
        let (view, level) = match (request, response) {
            (Request::Read { level, .. }, Response::Records { view, .. })
            | (Request::ReadRange { level, .. }, Response::RecordPage { view, .. })
            | (Request::ReadLog { level, .. }, Response::LogPage { view, .. }) => (*view, *level),
            _ => return Err("unexpected response type".to_owned()),
        };
        let View { applied, .. } = view;
        require(applied <= self.model.last(), || {
            format!("only {} is committed", self.model.last())
        })?;
        let linearizable = level == ReadLevel::Linearizable;
        require(!linearizable || applied >= floor, || {
            format!("{floor} was known before")
        })?;
        let like = |index: u64| match (request, response) {
            (Request::Read { keys, .. }, Response::Records { records, .. }) => {
                self.records(keys, records, index)
            }
            (
                Request::ReadRange {
                    start,
                    end,
                    after_start,
                    limit,
                    ..
                },
                Response::RecordPage { entries, next, .. },
            ) => {
                let from = |key: &Key| match start {
                    Some(start) if *after_start => key > start,
                    Some(start) => key >= start,
                    None => true,
                };
                let within = |key: &Key| from(key) && end.as_ref().is_none_or(|end| key < end);
                let mut all = self.model.all_at(index);
                all.retain(|key, _| within(key));
                let more = all.len() > *limit as usize;
                let found = entries
                    .iter()
                    .map(|(key, record)| (key.clone(), (record.version, record.value.clone())));
                all.into_iter().take(*limit as usize).eq(found) && next.is_some() == more
            }
            (Request::ReadLog { after, limit, .. }, Response::LogPage { entries, next, .. }) => {
                let all = self.model.appended.range(after + 1..=index.max(*after + 1));
                let all: Vec<_> = all.filter(|(id, _)| **id <= index).collect();
                let same = |((id, (source, data)), entry): (&(&u64, &(String, Bytes)), &LogEntry)| {
                    **id == entry.id && *source == entry.source && *data == entry.data
                };
                let limit = *limit as usize;
                entries.len() == all.len().min(limit)
                    && all.iter().zip(entries).all(same)
                    && next.is_some() == (all.len() > limit)
            }
            _ => unreachable!("checked before"),
        };
        require((applied..=self.model.last()).any(like), || {
            format!("no state from {applied} on matches")
        })?;
        if linearizable {
            self.floor = self.floor.max(applied);
        }
        Ok(())
    }

    /// A read includes everything that was known longer ago than its reported age.
    fn age(&self, submitted: &PendingOperation, response: &Response, cluster: &Cluster) -> Verdict {
        let (Response::Records { view, .. }
        | Response::RecordPage { view, .. }
        | Response::LogPage { view, .. }) = response
        else {
            return Ok(());
        };
        let Some(micros) = view.staleness_micros else {
            return Ok(());
        };
        if is_linearizable(&submitted.request) {
            return Ok(());
        }
        // The age is as of leaving the server; a forwarder adds to it.
        let travelled = match view.node == submitted.node {
            true => 0,
            false => cluster.profile.latency.map_or(0, |(_, longest)| longest),
        };
        let then = Instant(cluster.now) - Duration::from_micros(micros + travelled);
        let known = self.floors.partition_point(|(at, _)| *at < then);
        let floor = self.floors[..known].last().map_or(0, |(_, floor)| *floor);
        require(view.applied >= floor, || {
            format!(
                "{floor} was known at {}, before which it claims to have everything",
                then.0
            )
        })
    }

    fn records(&self, keys: &[Key], records: &[Option<Record>], index: u64) -> bool {
        let same = |(key, record): (&Key, &Option<Record>)| {
            let found = record
                .as_ref()
                .map(|record| (record.version, record.value.clone()));
            self.model.at(key, index) == found
        };
        keys.len() == records.len() && keys.iter().zip(records).all(same)
    }
}
