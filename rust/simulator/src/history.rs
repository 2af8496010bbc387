//! What the clients asked and what they were told: the only thing that correctness is judged by, as users see it.

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

/// What a client asks. Every value that is put is unique in its run, so that a value names its put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A put, or a delete where `value` is `None`.
    Put {
        /// Which key.
        key: Key,
        /// What.
        value: Option<Bytes>,
        /// What the client had seen, in a read-modify-write.
        context: Option<Context>,
    },
    /// A read of one key.
    Get {
        /// Which.
        key: Key,
    },
    /// A page of a scan.
    Scan {
        /// From here, included.
        start: Option<Key>,
        /// To here, excluded.
        end: Option<Key>,
        /// At most so many entries.
        limit: u32,
    },
    /// Something that a shard of a consensus keyspace is asked: a `Propose`, `Read`, `ReadRange` or `ReadLog`.
    Shard(Request),
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Whose.
    pub client: u32,
    /// Of which keyspace.
    pub keyspace: KeyspaceId,
    /// What it asked.
    pub action: Action,
    /// At which level; of no meaning in a consensus keyspace.
    pub level: Level,
    /// When it asked.
    pub invoked: Instant,
    /// When it was told what; `None` while it waits.
    pub completed: Option<(Instant, Result<Response, Error>)>,
}

impl Operation {
    /// Whether it was to change something, and its client was told that it has had no effect and never will. (That a condition
    /// does not hold is said of a command that was executed.)
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

    /// What a shard was asked, if one was, and which.
    pub fn asked(&self) -> Option<(GroupId, &Request)> {
        let Action::Shard(request) = &self.action else {
            return None;
        };
        Some((request.group()?, request))
    }

    /// What a shard answered, if one did.
    pub fn answer(&self) -> Option<&Response> {
        self.completed.as_ref()?.1.as_ref().ok()
    }
}

/// All operations, numbered in the order in which they were invoked.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    /// The log indexes of shards that clients came to know, each greater than the one before, and when.
    known: BTreeMap<GroupId, Vec<(Instant, u64)>>,
}

impl History {
    /// A client asks. Returns the operation's number.
    pub fn invoke(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// A client is told.
    ///
    /// # Panics
    /// If it was told already: an operation completes once.
    pub fn complete(&mut self, number: usize, at: Instant, result: Result<Response, Error>) {
        let operation = &mut self.operations[number];
        assert!(
            operation.completed.is_none(),
            "operation {number} completes twice: {operation:?}, now {result:?}"
        );
        operation.completed = Some((at, result));
        if let Some((group, request)) = operation.asked()
            && let Some(index) = operation.answer().and_then(|answer| revealed(request, answer))
        {
            let known = self.known.entry(group).or_default();
            if known.last().is_none_or(|(_, last)| *last < index) {
                known.push((at, index));
            }
        }
    }

    /// The last entry of a shard whose effect some client knew before this moment. Whatever is asked then comes after it.
    pub fn known_before(&self, group: GroupId, moment: Instant) -> u64 {
        let known = self.known.get(&group).map_or(&[][..], Vec::as_slice);
        let count = known.partition_point(|(at, _)| *at < moment);
        known[..count].last().map_or(0, |(_, index)| *index)
    }

    /// All of them.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many succeeded, failed definitely, ended unknown or otherwise, and still wait.
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

/// Up to which entry this answer shows the effects of a shard's log. A stale read shows them too, but promises nobody that
/// later readers will see as much.
fn revealed(request: &Request, answer: &Response) -> Option<u64> {
    match answer {
        Response::Committed(committed) => Some(committed.index),
        answer if request.read_level() == Some(ReadLevel::Linearizable) => Some(answer.view()?.applied),
        _ => None,
    }
}

/// How the operations of a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// With an answer; that a condition does not hold is one.
    pub succeeded: u64,
    /// With an error that promises that nothing happened.
    pub failed: u64,
    /// With an error that promises nothing.
    pub unknown: u64,
    /// Not yet.
    pub waiting: u64,
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::NodeId;
    use quorate_protocol::api::{Committed, View};
    use quorate_protocol::shard_command::Command;

    use super::*;

    const GROUP: GroupId = GroupId(2);

    /// A client asks at some time and is told at another.
    fn tell(history: &mut History, request: Request, times: (u64, u64), answer: Response) {
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
    fn what_a_client_knows_binds_whoever_asks_later() {
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
        tell(&mut history, append, (10, 20), committed);
        let (stale, answer) = read(ReadLevel::Stale, 9);
        tell(&mut history, stale, (21, 22), answer);
        let (older, answer) = read(ReadLevel::Linearizable, 4);
        tell(&mut history, older, (5, 30), answer);
        let (newer, answer) = read(ReadLevel::Linearizable, 7);
        tell(&mut history, newer, (31, 40), answer);
        let known = |at| history.known_before(GROUP, Instant(at));
        assert_eq!([known(20), known(21), known(40), known(41)], [0, 5, 5, 7]);
        assert_eq!(history.known_before(GroupId(3), Instant(99)), 0);
    }
}
