//! The random clients of a keyspace, and what they learn from answers.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response, Stamp};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_raft::event::ReadLevel;
use quorate_raft::types::GroupId;

use super::{Client, HASH, Run, TIMEOUT};
use crate::shard::testing::{Consensus as _, KEYSPACE};

impl Run {
    /// One of six keys of the group.
    pub(super) fn own_key(&mut self, group: GroupId) -> Key {
        let number = self.below(6) as usize;
        let keyspace = self.cluster.keyspace();
        let keys = (0..).map(|number| Key::of(format!("k{number}")).expect("a short key"));
        let mine = |key: &Key| keyspace.groups[keyspace.shard_of_key(HASH, key)].id == group;
        keys.filter(mine).nth(number).expect("keys are unlimited")
    }

    /// Rarely a key of another group, which this one must reject.
    fn key(&mut self, group: GroupId) -> Key {
        let groups = self.cluster.groups();
        let group = match self.below(60) {
            0 => self.one_of(&groups),
            _ => group,
        };
        self.own_key(group)
    }

    /// A source whose entries belong to the group.
    fn source(&self, group: GroupId) -> String {
        let keyspace = self.cluster.keyspace();
        let mut sources = (0..).map(|number| format!("source{number}"));
        let mine = |source: &String| keyspace.groups[keyspace.shard_of_source(HASH, source)].id == group;
        sources.find(mine).expect("sources are unlimited")
    }

    pub(super) fn value(&mut self) -> Bytes {
        self.values += 1;
        let length = self.below(60) as usize;
        format!("v{}{:.<length$}", self.values, "").into()
    }

    fn write(&mut self, client: usize, group: GroupId, key: Key) -> Write {
        let seen = self.clients[client].versions.get(&(group, key.clone())).copied();
        let condition = match (self.below(5), seen) {
            (0, _) => Condition::Absent,
            (1, Some(Some(version))) => Condition::Version(version),
            (2, Some(None)) => Condition::Absent,
            _ => Condition::Any,
        };
        let value = (self.below(6) > 0).then(|| self.value());
        Write {
            key,
            value,
            condition,
        }
    }

    fn command(&mut self, client: usize, group: GroupId) -> Command {
        match self.below(8) {
            0 => Command::Append {
                source: self.source(group),
                data: self.value(),
            },
            1 | 2 => {
                let mut keys: Vec<Key> = (0..2 + self.below(2)).map(|_| self.key(group)).collect();
                keys.sort_unstable();
                keys.dedup();
                let writes = keys.into_iter().map(|key| self.write(client, group, key));
                Command::Write(writes.collect())
            }
            _ => {
                let key = self.key(group);
                Command::Write(vec![self.write(client, group, key)])
            }
        }
    }

    pub(super) fn act(&mut self, client: usize) {
        let node = self.node();
        if !self.cluster.is_up(node) {
            return;
        }
        let groups = self.cluster.groups();
        let (group, request) = match self.clients[client].retry.clone() {
            Some((group, request, _)) => (group, request),
            None => {
                let group = self.one_of(&groups);
                (group, self.request(client, group))
            }
        };
        let left = self.below(4);
        let timeout = TIMEOUT / (left as u32 * 2 + 1);
        let operation = self.cluster.operations + 1;
        let by = Instant(self.cluster.now) + timeout;
        self.invariants
            .submitted(operation, node, request.clone(), group, by);
        self.clients[client].waits = Some(operation);
        assert_eq!(self.cluster.ask(node, group, request, timeout), operation);
    }

    fn request(&mut self, client: usize, group: GroupId) -> Request {
        let keyspace = KEYSPACE;
        let level = match self.below(4) {
            0 => ReadLevel::Stale,
            _ => ReadLevel::Linearizable,
        };
        match self.below(20) {
            0..4 => Request::Read {
                keyspace,
                group,
                keys: vec![self.key(group)],
                level,
            },
            4..8 => Request::Read {
                keyspace,
                group,
                keys: (0..2 + self.below(4)).map(|_| self.key(group)).collect(),
                level,
            },
            8 => Request::ReadRange {
                keyspace,
                group,
                start: (self.below(2) == 0).then(|| self.key(group)),
                end: (self.below(2) == 0).then(|| self.key(group)),
                after_start: self.below(2) == 0,
                limit: 1 + self.below(6) as u32,
                level,
            },
            9 => {
                let last = self.invariants.committed(group);
                Request::ReadLog {
                    keyspace,
                    group,
                    after: self.below(last + 1),
                    limit: 1 + self.below(6) as u32,
                    level,
                }
            }
            10..14 => Request::Propose {
                keyspace,
                group,
                command: self.command(client, group),
                session: None,
            },
            _ => {
                let command = self.command(client, group);
                let rare = self.below(30) == 0;
                let Some((session, last)) = self.clients[client].sessions.get_mut(&group) else {
                    let idle_ms = self.one_of(&[60, 400, 5000]);
                    return Request::OpenSession {
                        keyspace,
                        group,
                        idle_ms,
                    };
                };
                let session = *session;
                if rare {
                    return Request::CloseSession {
                        keyspace,
                        group,
                        session,
                    };
                }
                *last += 1;
                Request::Propose {
                    keyspace,
                    group,
                    command,
                    session: Some(Stamp {
                        session,
                        sequence: *last,
                        acknowledged: *last - 1,
                    }),
                }
            }
        }
    }
}

impl Client {
    pub(super) fn learn(&mut self, group: GroupId, request: &Request, result: &Result<Response, Error>) {
        let tries = self.retry.take().map_or(0, |(_, _, tries)| tries);
        match (request, result) {
            (_, Ok(Response::SessionOpened { session, .. })) => {
                self.sessions.insert(group, (*session, 0));
            }
            (Request::CloseSession { .. }, _) | (_, Err(Error::SessionExpired(_))) => {
                self.sessions.remove(&group);
            }
            (
                Request::Propose { session: Some(_), .. },
                Err(
                    Error::OutcomeUnknown { .. }
                    | Error::Unavailable { .. }
                    | Error::Overloaded(_)
                    | Error::StorageFull(_),
                ),
            ) => match tries {
                // It gives up, and must abandon the session: it cannot acknowledge its answers.
                12 => drop(self.sessions.remove(&group)),
                _ => self.retry = Some((group, request.clone(), tries + 1)),
            },
            (Request::Read { keys, .. }, Ok(Response::Records { records, .. })) => {
                for (key, record) in keys.iter().zip(records) {
                    let version = record.as_ref().map(|record| record.version);
                    self.versions.insert((group, key.clone()), version);
                }
            }
            _ => {}
        }
    }
}
