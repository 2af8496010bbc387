//! The history: the requests of the clients and their results, by which invariants check correctness as clients see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::Instant;
use quorate_protocol::api::{ReadLevel, Request, Response};
use quorate_raft::types::GroupId;
use quorate_versions::Context;
use serde::{Deserialize, Serialize};

/// An action of a client. Every value that is put is unique in its run, so that it identifies its put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A put, or a delete where `value` is `None`.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Option<Bytes>,
        /// The causal context, in a read-modify-write.
        context: Option<Context>,
    },
    /// A read of one key.
    Get {
        /// The key.
        key: Key,
    },
    /// A page of a scan.
    Scan {
        /// The inclusive lower bound.
        start: Option<Key>,
        /// The exclusive upper bound.
        end: Option<Key>,
        /// The maximum number of entries.
        limit: u32,
    },
    /// A request to a shard of a consensus keyspace: a `Propose`, `Read`, `ReadRange` or `ReadLog`.
    Shard(Request),
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The client.
    pub client: u32,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The action.
    pub action: Action,
    /// The level; unused in a consensus keyspace.
    pub level: Level,
    /// When it was invoked.
    pub invoked: Instant,
    /// When it completed, and its result; `None` while it is pending.
    pub completed: Option<(Instant, Result<Response, Error>)>,
}

impl Operation {
    /// Whether it is a write that failed definitely: it has had no effect and never will. (A failed condition is the result of
    /// an executed command.)
    pub fn failed_definitely(&self) -> bool {
        let Some((_, Err(error))) = &self.completed else {
            return false;
        };
        match &self.action {
            Action::Put { .. } => error.is_definite(),
            Action::Shard(Request::Propose { .. }) => {
                error.is_definite() && !matches!(error, Error::ConditionFailed { .. })
            }
            Action::Get { .. } | Action::Scan { .. } | Action::Shard(_) => false,
        }
    }

    /// The request to a shard and its group, if it is one.
    pub fn shard_request(&self) -> Option<(GroupId, &Request)> {
        let Action::Shard(request) = &self.action else {
            return None;
        };
        Some((request.group()?, request))
    }

    /// The response, if it succeeded.
    pub fn response(&self) -> Option<&Response> {
        self.completed.as_ref()?.1.as_ref().ok()
    }
}

/// All operations, numbered in the order in which they were invoked.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    /// The log indexes of shards that clients have observed, increasing, and when.
    known: BTreeMap<GroupId, Vec<(Instant, u64)>>,
}

impl History {
    /// A client invokes an operation. Returns its number.
    pub fn invoke(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// An operation completes.
    ///
    /// # Panics
    /// If it has completed already.
    pub fn complete(&mut self, number: usize, at: Instant, result: Result<Response, Error>) {
        let operation = &mut self.operations[number];
        assert!(
            operation.completed.is_none(),
            "operation {number} completes twice: {operation:?}, now {result:?}"
        );
        operation.completed = Some((at, result));
        if let Some((group, request)) = operation.shard_request()
            && let Some(index) = operation.response().and_then(|answer| revealed(request, answer))
        {
            let known = self.known.entry(group).or_default();
            if known.last().is_none_or(|(_, last)| *last < index) {
                known.push((at, index));
            }
        }
    }

    /// The last entry of a shard whose effect some client had observed before this moment. Later operations follow it.
    pub fn known_before(&self, group: GroupId, moment: Instant) -> u64 {
        let known = self.known.get(&group).map_or(&[][..], Vec::as_slice);
        let count = known.partition_point(|(at, _)| *at < moment);
        known[..count].last().map_or(0, |(_, index)| *index)
    }

    /// All of them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Counts the operations that succeeded, failed definitely, ended with unknown outcome, and are pending.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match &operation.completed {
                None => tally.waiting += 1,
                Some((_, Ok(_) | Err(Error::ConditionFailed { .. }))) => tally.succeeded += 1,
                Some((_, Err(error))) if error.is_definite() => tally.failed += 1,
                Some((_, Err(_))) => tally.unknown += 1,
            }
        }
        tally
    }
}

/// The last entry of a shard's log whose effects this response guarantees to later readers. A stale read guarantees none.
fn revealed(request: &Request, answer: &Response) -> Option<u64> {
    match answer {
        Response::Committed(committed) => Some(committed.index),
        answer if request.read_level() == Some(ReadLevel::Linearizable) => Some(answer.view()?.applied),
        _ => None,
    }
}

/// The outcomes of the operations of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Succeeded; a failed condition counts as success.
    pub succeeded: u64,
    /// Failed with a definite error.
    pub failed: u64,
    /// Ended with unknown outcome.
    pub unknown: u64,
    /// Still pending.
    pub waiting: u64,
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::NodeId;
    use quorate_protocol::api::{Committed, View};
    use quorate_protocol::shard_command::Command;

    use super::*;

    const GROUP: GroupId = GroupId(2);

    /// Adds an operation with its times of invocation and completion.
    fn complete(history: &mut History, request: Request, times: (u64, u64), answer: Response) {
        let number = history.invoke(Operation {
            client: 0,
            keyspace: KeyspaceId(1),
            action: Action::Shard(request),
            level: Level::Quorum,
            invoked: Instant(times.0),
            completed: None,
        });
        history.complete(number, Instant(times.1), Ok(answer));
    }

    fn read(level: ReadLevel, applied: u64) -> (Request, Response) {
        let request = Request::Read {
            keyspace: KeyspaceId(1),
            group: GROUP,
            keys: Vec::new(),
            level,
        };
        let view = View {
            node: NodeId(1),
            leader: None,
            applied,
            staleness_micros: None,
        };
        let records = Vec::new();
        (request, Response::Records { records, view })
    }

    #[test]
    fn observed_entries_precede_later_operations() {
        let mut history = History::default();
        let append = Request::Propose {
            keyspace: KeyspaceId(1),
            group: GROUP,
            command: Command::Write(Vec::new()),
            session: None,
        };
        let committed = Response::Committed(Committed {
            index: 5,
            term: 1,
            leader: NodeId(1),
        });
        complete(&mut history, append, (10, 20), committed);
        let (stale, answer) = read(ReadLevel::Stale, 9);
        complete(&mut history, stale, (21, 22), answer);
        let (older, answer) = read(ReadLevel::Linearizable, 4);
        complete(&mut history, older, (5, 30), answer);
        let (newer, answer) = read(ReadLevel::Linearizable, 7);
        complete(&mut history, newer, (31, 40), answer);
        let known = |at| history.known_before(GROUP, Instant(at));
        assert_eq!([known(20), known(21), known(40), known(41)], [0, 5, 5, 7]);
        assert_eq!(history.known_before(GroupId(3), Instant(99)), 0);
    }
}
