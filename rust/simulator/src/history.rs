//! What the clients asked and what they were told: the only thing that correctness is judged by, as users see it.

use bytes::Bytes;
use quorate_protocol::api::Response;
use quorate_protocol::error::Error;
use quorate_protocol::ids::KeyspaceId;
use quorate_protocol::key::Key;
use quorate_protocol::level::Level;
use quorate_protocol::time::Instant;
use quorate_protocol::versions::Context;
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
    /// At which level.
    pub level: Level,
    /// When it asked.
    pub invoked: Instant,
    /// When it was told what; `None` while it waits.
    pub completed: Option<(Instant, Result<Response, Error>)>,
}

impl Operation {
    /// Whether it put or deleted, and was told that it has had and will have no effect.
    pub fn failed_definitely(&self) -> bool {
        matches!((&self.action, &self.completed), (Action::Put { .. }, Some((_, Err(error)))) if error.is_definite())
    }
}

/// All operations, numbered in the order in which they were invoked.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
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
                Some((_, Ok(_))) => tally.succeeded += 1,
                Some((_, Err(error))) if error.is_definite() => tally.failed += 1,
                Some((_, Err(_))) => tally.unknown += 1,
            }
        }
        tally
    }
}

/// How the operations of a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// With the answer that was asked for.
    pub succeeded: u64,
    /// With an error that promises that nothing happened.
    pub failed: u64,
    /// With an error that promises nothing.
    pub unknown: u64,
    /// Not yet.
    pub waiting: u64,
}
