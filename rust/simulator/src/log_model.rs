//! The log model: the committed logs of consensus keyspaces' shards, and the states that follow from them.
//!
//! The world inspects the log of every server after each of its steps. Entries that a server considers committed are
//! recorded here, once, and executed in a model of a shard that shares only the encodings with the real one: without rows,
//! batches and snapshots, but with the history of all states. Invariants compare rows, results and reads with this model.
//! It is for shards what the [write model](crate::write_model) is for quorum keyspaces.

use std::collections::{BTreeMap, BTreeSet};

use quorate_checker::figure3::Commits;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::time::WallTime;
use quorate_protocol::api::{LogEntry, Record};
use quorate_protocol::shard_command::{Command, Condition, Outcome, Write};
use quorate_raft::Raft;
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::sessions::{Logged, Request};
use quorate_raft::types::{GroupId, LogPosition};

use crate::servers::Seen;

/// An executed command, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The command.
    pub command: Command,
    /// The outcome.
    pub outcome: Outcome,
}

impl Execution {
    /// Whether it changed anything.
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done { .. })
    }
}

/// A session of a client, as of the log.
#[derive(Clone, Debug)]
struct Session {
    idle_micros: u64,
    expires: WallTime,
    /// Commands up to this sequence number are not executed again.
    floor: u64,
    executed: BTreeSet<u64>,
}

/// The committed log of one group.
#[derive(Clone, Debug, Default)]
pub struct LogModel {
    commits: Commits<NodeId, Entry>,
    /// The last executed entry.
    last: u64,
    executions: BTreeMap<u64, Execution>,
    /// The session and sequence number of each execution.
    calls: BTreeMap<u64, (u64, u64)>,
    /// The versions of each key, with the entry from which each is valid.
    records: BTreeMap<Key, Vec<(u64, Option<Record>)>>,
    appended: BTreeMap<u64, LogEntry>,
    clock: WallTime,
    sessions: BTreeMap<u64, Session>,
}

impl LogModel {
    /// The last committed entry.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A committed entry.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.commits.entry(index)
    }

    /// The executed commands, by log index. A retry in a session is included once.
    pub fn executions(&self) -> &BTreeMap<u64, Execution> {
        &self.executions
    }

    /// The session and sequence number of the command executed at this entry.
    pub fn call(&self, index: u64) -> Option<(u64, u64)> {
        self.calls.get(&index).copied()
    }

    /// The appended entries, by id.
    pub fn appended(&self) -> &BTreeMap<u64, LogEntry> {
        &self.appended
    }

    /// The record of a key after this entry.
    pub fn record_at(&self, key: &Key, index: u64) -> Option<&Record> {
        let states = self.records.get(key)?;
        let count = states.partition_point(|(from, _)| *from <= index);
        states[..count].last()?.1.as_ref()
    }

    /// All records after this entry.
    pub fn records_at(&self, index: u64) -> BTreeMap<&Key, &Record> {
        let there = |key| Some((key, self.record_at(key, index)?));
        self.records.keys().filter_map(there).collect()
    }

    /// Checks that a server's committed entries equal those of others, and adds the entries that it is the first to have.
    fn watch(&mut self, node: NodeId, raft: &Raft) -> Result<(), String> {
        let mut commits = std::mem::take(&mut self.commits);
        commits.check(&Seen(node, raft))?;
        while let Some(entry) = commits.entry(self.last() + 1) {
            self.commit(entry)?;
        }
        let (last, found) = (self.last(), commits.last());
        self.commits = commits;
        match last == found {
            true => Ok(()),
            false => Err(format!(
                "{node} has committed {found}, and no server was seen to commit the entries after {last}"
            )),
        }
    }

    /// Adds the next committed entry.
    fn commit(&mut self, entry: &Entry) -> Result<(), String> {
        self.last = entry.index.0;
        let EntryKind::Command(bytes) = &entry.kind else {
            return Ok(());
        };
        let logged = Logged::<Command>::decode(bytes);
        let Logged { time, request } = logged.map_err(|error| format!("{entry:?} is committed: {error}"))?;
        self.clock = self.clock.max(time);
        let clock = self.clock;
        self.sessions.retain(|_, session| session.expires >= clock);
        match request {
            Request::Plain(command) => self.execute(entry.position(), command),
            Request::Open { idle_ms } => {
                let idle_micros = idle_ms.saturating_mul(1000);
                let session = Session {
                    idle_micros,
                    expires: WallTime(clock.0.saturating_add(idle_micros)),
                    floor: 0,
                    executed: BTreeSet::new(),
                };
                self.sessions.insert(entry.index.0, session);
            }
            Request::Close(session) => drop(self.sessions.remove(&session.0)),
            Request::InSession {
                session,
                sequence,
                acknowledged,
                command,
            } => {
                let call = (session.0, sequence);
                if let Some(session) = self.sessions.get_mut(&session.0)
                    && session.takes(sequence, acknowledged, clock)
                {
                    self.calls.insert(entry.index.0, call);
                    self.execute(entry.position(), command);
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, position: LogPosition, command: Command) {
        let (index, term) = (position.index.0, position.term.0);
        let done = Outcome::Done { index, term };
        let outcome = match &command {
            Command::Append { source, data } => {
                let entry = LogEntry {
                    id: index,
                    term,
                    time: self.clock,
                    source: source.clone(),
                    data: data.clone(),
                };
                self.appended.insert(index, entry);
                done
            }
            Command::Write(writes) => match self.refused(writes) {
                Some((write, current)) => Outcome::ConditionFailed { write, current },
                None => {
                    self.write(index, writes);
                    done
                }
            },
        };
        self.executions.insert(index, Execution { command, outcome });
    }

    /// The first write of a batch with a failed condition, and the current version of its key.
    fn refused(&self, writes: &[Write]) -> Option<(u32, Option<u64>)> {
        (0..).zip(writes).find_map(|(place, write)| {
            let current = self.record_at(&write.key, u64::MAX).map(|record| record.version);
            let holds = match write.condition {
                Condition::Any => true,
                Condition::Absent => current.is_none(),
                Condition::Version(wanted) => current == Some(wanted),
            };
            (!holds).then_some((place, current))
        })
    }

    fn write(&mut self, index: u64, writes: &[Write]) {
        for write in writes {
            let record = write.value.clone().map(|value| Record {
                version: index,
                time: self.clock,
                value,
            });
            let states = self.records.entry(write.key.clone()).or_default();
            states.push((index, record));
        }
    }
}

impl Session {
    /// Whether a command in the session is new, and so is executed.
    fn takes(&mut self, sequence: u64, acknowledged: u64, clock: WallTime) -> bool {
        self.expires = WallTime(clock.0.saturating_add(self.idle_micros));
        self.floor = self.floor.max(acknowledged);
        sequence > self.floor && self.executed.insert(sequence)
    }
}

/// The log models of all groups of consensus keyspaces.
#[derive(Clone, Debug, Default)]
pub struct LogModels {
    by_group: BTreeMap<GroupId, LogModel>,
}

impl LogModels {
    /// The log model of a group, once it has committed an entry.
    pub fn get(&self, group: GroupId) -> Option<&LogModel> {
        self.by_group.get(&group)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &LogModel)> {
        self.by_group.iter().map(|(group, log_model)| (*group, log_model))
    }

    /// A server of a group starts.
    pub fn restarted(&mut self, group: GroupId, node: NodeId) {
        let log_model = self.by_group.entry(group).or_default();
        log_model.commits.restarted(node);
    }

    /// A server of a group has handled an event.
    ///
    /// # Errors
    /// The server's committed entries differ from those of another server.
    pub fn watch(&mut self, group: GroupId, node: NodeId, raft: &Raft) -> Result<(), String> {
        let log_model = self.by_group.entry(group).or_default();
        log_model
            .watch(node, raft)
            .map_err(|what| format!("in {group}, {what}"))
    }
}

#[cfg(test)]
#[path = "log_model_tests.rs"]
mod tests;
