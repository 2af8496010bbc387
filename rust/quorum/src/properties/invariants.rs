//! The properties of quorum keyspaces.
//!
//! 1. Every request of a client is answered exactly once (unless its node has crashed).
//! 2. When a write is acknowledged, at least W replicas have it durably.
//! 3. A dot is given once.
//! 4. A write that was durable anywhere, acknowledged or not, disappears only if a put that saw it has replaced it: one
//!    that was durable somewhere, or was itself replaced by such a put.
//! 5. A write that was rejected with a definite error leaves no trace in any replica.
//! 6. A replica's durable state only grows, and each record has its row in the token index.
//! 7. In the end all replicas of a key are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::{Key, decode_index_key, decode_record_key};
use quorate_core::store::{JournalOp, Table};
use quorate_protocol::api::{Entry, Request, Response, Written};
use quorate_protocol::local::LocalMessage;
use quorate_role_testing::{Content, Output};
use quorate_versions::{Context, Dot, KeyState, WriteId};

use crate::testing::{Cluster, Keyspaces as _, TraceEvent, rows};

/// A request and its responses.
struct Operation {
    node: NodeId,
    /// Its puts, each with whether it was rejected with a definite error.
    puts: Vec<(Key, WriteId, bool)>,
    required: u8,
    answers: usize,
    /// Its node crashed before it had answered.
    orphaned: bool,
}

/// The events that a replica has made of a key since it last submitted it, each with the state that it has sent.
type Assigned = Vec<(Dot, Arc<KeyState>)>;

pub(super) struct Invariants {
    replicas: u8,
    operations: BTreeMap<u64, Operation>,
    /// The last read of a key by any client: the context, and the writes that it returned.
    contexts: BTreeMap<Key, (Context, BTreeSet<Dot>)>,
    /// The writes that the client of a put with a context had read.
    shown: BTreeMap<WriteId, BTreeSet<Dot>>,
    /// Deletes that have a dot.
    deletes: BTreeSet<(Key, Dot)>,
    last_puts: BTreeMap<Key, u64>,
    /// Write ids that were used more than once.
    retried: BTreeSet<WriteId>,
    /// The writes that a put has seen and replaced: it saw them through its replica, or through its context.
    replaced: BTreeMap<Dot, BTreeSet<Dot>>,
    /// Writes that were durable somewhere.
    synced: BTreeSet<(Key, Dot)>,
    /// The write to which each dot was given.
    given: BTreeMap<Dot, WriteId>,
    /// All writes that were ever on their way to a disk.
    traces: BTreeSet<WriteId>,
    /// A replica's state of a key in memory while persists of it are in flight, and their number.
    memory: BTreeMap<(NodeId, Key), (KeyState, usize)>,
    /// The keys of pending `Assign`s.
    assigning: BTreeMap<(NodeId, u64), Key>,
    assigned: BTreeMap<(NodeId, Key), Assigned>,
    durable: BTreeMap<(NodeId, Key), KeyState>,
    broken: Vec<String>,
}

impl Invariants {
    pub(super) fn new(replicas: u8) -> Self {
        Invariants {
            replicas,
            operations: BTreeMap::new(),
            contexts: BTreeMap::new(),
            shown: BTreeMap::new(),
            deletes: BTreeSet::new(),
            last_puts: BTreeMap::new(),
            retried: BTreeSet::new(),
            replaced: BTreeMap::new(),
            synced: BTreeSet::new(),
            given: BTreeMap::new(),
            traces: BTreeSet::new(),
            memory: BTreeMap::new(),
            assigning: BTreeMap::new(),
            assigned: BTreeMap::new(),
            durable: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    /// The context of a client that has read the key.
    pub(super) fn context(&self, key: &Key) -> Option<Context> {
        self.contexts.get(key).map(|(context, _)| context.clone())
    }

    /// The last put of the key.
    pub(super) fn last_put(&self, key: &Key) -> Option<u64> {
        self.last_puts.get(key).copied()
    }

    pub(super) fn requested(&mut self, number: u64, node: NodeId, request: &Request) {
        let (puts, level) = match request {
            Request::Put {
                key,
                level,
                write_id,
                value,
                context,
                ..
            } => {
                if let (Some(_), Some((_, shown))) = (context, self.contexts.get(key)) {
                    self.shown.insert(*write_id, shown.clone());
                }
                if write_id.sequence != number {
                    self.retried.insert(*write_id);
                } else if value.is_some() {
                    self.last_puts.insert(key.clone(), number);
                }
                (vec![(key.clone(), *write_id, false)], level)
            }
            Request::PutMany {
                items,
                level,
                write_id,
                ..
            } => {
                let mut puts = Vec::new();
                for (place, item) in items.iter().enumerate() {
                    let write_id = write_id.nth(place);
                    if let (Some(_), Some((_, shown))) = (&item.context, self.contexts.get(&item.key)) {
                        self.shown.insert(write_id, shown.clone());
                    }
                    puts.push((item.key.clone(), write_id, false));
                }
                (puts, level)
            }
            Request::Get { level, .. } | Request::GetMany { level, .. } | Request::Scan { level, .. } => {
                (Vec::new(), level)
            }
            other => panic!("unexpected request {other:?}"),
        };
        let level = level.expect("every request names its level");
        let operation = Operation {
            node,
            puts,
            required: level.required(self.replicas).expect("a level that there is"),
            answers: 0,
            orphaned: false,
        };
        self.operations.insert(number, operation);
    }

    pub(super) fn crashed(&mut self, node: NodeId) {
        self.memory.retain(|(of, _), _| *of != node);
        self.assigned.retain(|(of, _), _| *of != node);
        for operation in self.operations.values_mut() {
            operation.orphaned |= operation.node == node && operation.answers == 0;
        }
    }

    /// Observes the trace since the last call.
    pub(super) fn observe(&mut self, cluster: &mut Cluster, keyspace: KeyspaceId) {
        for event in std::mem::take(&mut cluster.trace) {
            match event {
                TraceEvent::Local(sent) => {
                    let operation = (sent.from.node, sent.message.header.request);
                    match sent.message.content {
                        Content::Local(LocalMessage::Assign { key, .. }) => {
                            self.assigning.insert(operation, key);
                        }
                        Content::Local(LocalMessage::Assigned { dot, state, .. }) => {
                            let key = self.assigning[&operation].clone();
                            let place = (sent.from.node, key);
                            self.assigned.entry(place).or_default().push((dot, state));
                        }
                        _ => {}
                    }
                }
                TraceEvent::Submitted { node, ops } => {
                    for (key, state) in records(&ops) {
                        self.submitted(node, key, state);
                    }
                }
                TraceEvent::Disk { node, ops, refused } => {
                    for (key, state) in records(&ops) {
                        self.flushed(node, key, state, refused);
                    }
                }
                TraceEvent::Output(_, Output::Reply(operation, response)) => {
                    self.answered(cluster, keyspace, operation, response);
                }
                _ => {}
            }
        }
    }

    /// A replica has a new state of a key: it is on its way to the disk.
    fn submitted(&mut self, node: NodeId, key: Key, state: KeyState) {
        let writes = state.siblings().iter().map(|sibling| sibling.write_id);
        self.traces.extend(writes);
        let place = (node, key.clone());
        let durable = self.durable.get(&place).cloned().unwrap_or_default();
        let (before, in_flight) = self.memory.get(&place).cloned().unwrap_or((durable, 0));
        // Dots of retries are known already.
        let assigned = self.assigned.remove(&place).unwrap_or_default();
        let new = |(dot, _): &(Dot, Arc<KeyState>)| !before.clock().contains(*dot);
        let mut there: Vec<Dot> = before.siblings().iter().map(|sibling| sibling.dot).collect();
        for (dot, sent) in assigned.into_iter().filter(new) {
            let sibling = sent.sibling(dot).expect("the write is in its own state");
            if sibling.is_tombstone() {
                self.deletes.insert((key.clone(), sibling.dot));
            }
            let first = *self.given.entry(sibling.dot).or_insert(sibling.write_id);
            if first != sibling.write_id {
                self.broken.push(format!("{:?} was given twice", sibling.dot));
            }
            // A write that was dropped without being replaced is not gone.
            let is_gone = |old: &Dot| sent.sibling(*old).is_none() && state.sibling(*old).is_none();
            let gone = there.iter().copied().filter(is_gone);
            let shown = self.shown.get(&sibling.write_id).into_iter().flatten();
            let replaced = gone.chain(shown.copied());
            self.replaced.entry(dot).or_default().extend(replaced);
            there.push(dot);
        }
        self.memory.insert(place, (state, in_flight + 1));
    }

    fn flushed(&mut self, node: NodeId, key: Key, state: KeyState, refused: bool) {
        let place = (node, key.clone());
        if let Some((_, in_flight)) = self.memory.get_mut(&place) {
            *in_flight -= 1;
            if *in_flight == 0 {
                self.memory.remove(&place);
            }
        }
        if refused {
            return;
        }
        let siblings = state.siblings().iter().map(|sibling| (key.clone(), sibling.dot));
        self.synced.extend(siblings);
        let before = self.durable.insert(place, state.clone()).unwrap_or_default();
        if !state.includes(&before) {
            self.broken
                .push(format!("{node} has forgotten {before:?}: {state:?}"));
        }
    }

    fn answered(
        &mut self,
        cluster: &Cluster,
        keyspace: KeyspaceId,
        number: u64,
        response: Result<Response, Error>,
    ) {
        let operation = self
            .operations
            .get_mut(&number)
            .expect("only pending requests are answered");
        operation.answers += 1;
        let required = usize::from(operation.required);
        let requested = cluster
            .protocol
            .0
            .requests
            .get(&number)
            .map(|(_, request)| request);
        let wanted = operation.puts.len();
        match (requested, response) {
            (Some(Request::Put { key, .. }), Ok(Response::Written(written))) => {
                self.acknowledged(cluster, keyspace, (number, required), key, &written);
            }
            (Some(Request::PutMany { items, .. }), Ok(Response::WrittenMany(all))) if all.len() == wanted => {
                for (place, result) in all.into_iter().enumerate() {
                    match result {
                        Ok(written) => {
                            let key = &items[place].key;
                            self.acknowledged(cluster, keyspace, (number, required), key, &written);
                        }
                        Err(error) => {
                            let operation = self.operations.get_mut(&number).expect("it was just found");
                            operation.puts[place].2 = error.is_definite();
                        }
                    }
                }
            }
            (Some(Request::Put { .. } | Request::PutMany { .. }), Err(error)) => {
                for (_, _, refused) in &mut operation.puts {
                    *refused = error.is_definite();
                }
            }
            (Some(Request::Get { key, .. }), Ok(Response::Entry(entry))) => {
                self.read(number, required, key, &entry);
            }
            (Some(Request::GetMany { keys, .. }), Ok(Response::Entries(all))) if all.len() == keys.len() => {
                for (key, entry) in keys.iter().zip(all.iter().flatten()) {
                    self.read(number, required, key, entry);
                }
            }
            (Some(Request::Scan { .. }), Ok(Response::Page(_)))
            | (Some(Request::Get { .. } | Request::GetMany { .. } | Request::Scan { .. }), Err(_)) => {}
            (_, other) => self.broken.push(format!("op{number} was answered {other:?}")),
        }
    }

    /// A client has read the key. The response omits deletes, and the duplicate dots of a write that was retried.
    fn read(&mut self, number: u64, required: usize, key: &Key, entry: &Entry) {
        if entry.answered.len() < required {
            let count = entry.answered.len();
            self.broken.push(format!(
                "op{number} was answered by {count} of {required} required"
            ));
        }
        let versions = entry.versions.iter().map(|version| version.dot);
        let mut shown: BTreeSet<Dot> = versions.collect();
        let writes: BTreeSet<WriteId> = shown.iter().map(|dot| self.given[dot]).collect();
        let twins = self.given.iter().filter(|(_, write)| writes.contains(write));
        let deletes = self.deletes.iter().filter(|(of, _)| of == key);
        let hidden = twins.map(|(dot, _)| *dot).chain(deletes.map(|(_, dot)| *dot));
        shown.extend(hidden.filter(|dot| entry.context.contains(*dot)));
        self.contexts.insert(key.clone(), (entry.context.clone(), shown));
    }

    fn acknowledged(
        &mut self,
        cluster: &Cluster,
        keyspace: KeyspaceId,
        (number, required): (u64, usize),
        key: &Key,
        written: &Written,
    ) {
        let dot = written.dot;
        let has = |node: &NodeId| {
            cluster
                .durable(*node, keyspace, key)
                .is_some_and(|state| state.clock().contains(dot))
        };
        for node in written.acked.iter().filter(|node| !has(node)) {
            self.broken.push(format!(
                "op{number} was acknowledged by {node}, which does not have it"
            ));
        }
        if written.acked.len() < required {
            self.broken.push(format!(
                "op{number} was written with {} of {required} required",
                written.acked.len()
            ));
        }
    }

    /// At quiescence: the properties that were violated.
    pub(super) fn verdict(
        mut self,
        cluster: &Cluster,
        keyspace: KeyspaceId,
        keys: impl Iterator<Item = Key>,
    ) -> Vec<String> {
        for (number, operation) in &self.operations {
            let expected = if operation.orphaned { 0 } else { 1 };
            if operation.answers != expected {
                self.broken
                    .push(format!("op{number} was answered {} times", operation.answers));
            }
            for (_, write, refused) in &operation.puts {
                if *refused && self.traces.contains(write) && !self.retried.contains(write) {
                    self.broken
                        .push(format!("op{number} was rejected but has left a trace"));
                }
            }
        }
        let gone = self.superseded();
        for key in keys {
            self.check_converged(cluster, keyspace, &key, &gone);
        }
        for (node, found) in &cluster.nodes {
            let contents = &found.disk.store.contents;
            let indexed: BTreeSet<Key> = contents
                .rows_from(Table::TokenIndex, &[])
                .map(|(row, _)| decode_index_key(row).expect("an index row").2)
                .collect();
            let stored: BTreeSet<Key> = contents
                .rows_from(Table::Records, &[])
                .map(|(row, _)| decode_record_key(row).expect("a record's key").1)
                .collect();
            if indexed != stored {
                self.broken
                    .push(format!("{node} has {stored:?} but an index of {indexed:?}"));
            }
        }
        self.broken
    }

    /// All writes that were replaced by a durable write, or by one that was itself replaced by one, and so on.
    fn superseded(&self) -> BTreeSet<Dot> {
        let mut gone = BTreeSet::new();
        let mut next: Vec<Dot> = self.synced.iter().map(|(_, dot)| *dot).collect();
        while let Some(dot) = next.pop() {
            for replaced in self.replaced.get(&dot).into_iter().flatten() {
                if gone.insert(*replaced) {
                    next.push(*replaced);
                }
            }
        }
        gone
    }

    fn check_converged(&mut self, cluster: &Cluster, keyspace: KeyspaceId, key: &Key, gone: &BTreeSet<Dot>) {
        let preference = cluster
            .protocol
            .0
            .placement
            .preference(self.replicas)
            .expect("enough nodes");
        let states: Vec<KeyState> = preference
            .of(key)
            .iter()
            .map(|node| cluster.durable(*node, keyspace, key).unwrap_or_default())
            .collect();
        if states.iter().any(|state| *state != states[0]) {
            self.broken
                .push(format!("the replicas of {key} differ: {states:?}"));
        }
        for (of, dot) in &self.synced {
            let there = states.iter().any(|state| state.sibling(*dot).is_some());
            if of == key && !there && !gone.contains(dot) {
                self.broken
                    .push(format!("{dot:?} was durable and disappeared from {key}"));
            }
        }
    }
}

/// The key states among these rows.
fn records(ops: &[JournalOp]) -> Vec<(Key, KeyState)> {
    let records = rows(ops).filter(|write| write.table == Table::Records);
    records
        .map(|write| {
            let (_, key) = decode_record_key(&write.key).expect("a record's key");
            let value = write.value.as_ref().expect("records are not deleted");
            (key, KeyState::decode(value).expect("a record's state"))
        })
        .collect()
}
