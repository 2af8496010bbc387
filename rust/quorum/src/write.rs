//! The write coordinator: one client's put or delete, from its event to W durable copies.
//!
//! A pure tally. The coordinator passes it the responses and sends the messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Response, Written};
use quorate_versions::{Context, Dot, KeyState, WriteId};

use crate::operation::Progress;

/// A put or delete of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mutation {
    pub(super) key: Key,
    /// `None` deletes.
    pub(super) value: Option<Bytes>,
    pub(super) context: Option<Context>,
    pub(super) write_id: WriteId,
}

/// The state of one replica's copy, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Copy {
    /// It may still acknowledge.
    Pending,
    /// It acknowledged that the write is durable.
    Durable,
    /// It rejected the write, or is unreachable.
    Failed,
}

/// A write in progress.
///
/// Invariants: `me` is one of the replicas; no copy is durable before there is an event (although `Stored` may arrive
/// before `Assigned`: messages overtake each other); a durable copy stays durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    keyspace: KeyspaceId,
    pub(super) key: Key,
    me: NodeId,
    /// The most preferred first.
    copies: Vec<(NodeId, Copy)>,
    event: Option<(Dot, Timestamp, Arc<KeyState>)>,
    /// Why copies failed.
    reasons: BTreeMap<NodeId, String>,
    /// Kept while the put may be forwarded to another replica: until there is an event.
    mutation: Option<Mutation>,
}

impl Write {
    /// A write to `replicas`, of which `alive` are reachable; `me` is in both.
    pub(super) fn new(
        (keyspace, key): (KeyspaceId, Key),
        me: NodeId,
        replicas: &[NodeId],
        alive: &BTreeSet<NodeId>,
    ) -> Self {
        assert!(
            replicas.contains(&me),
            "only a replica of the key coordinates its writes"
        );
        let mut write = Write {
            keyspace,
            key,
            me,
            copies: replicas.iter().map(|node| (*node, Copy::Pending)).collect(),
            event: None,
            reasons: BTreeMap::new(),
            mutation: None,
        };
        for node in replicas.iter().filter(|node| !alive.contains(node)) {
            write.unreachable(*node);
        }
        write
    }

    /// Keeps the mutation, to forward it if the own replica rejects it.
    pub(super) fn keep_mutation(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
    }

    /// Takes the mutation, to forward it to another replica.
    pub(super) fn take_mutation(&mut self) -> Option<Mutation> {
        self.mutation.take()
    }

    /// The own replica has made the write an event. Returns whether it is the first: then the caller sends the state to
    /// [`Write::targets`].
    pub(super) fn assigned(&mut self, dot: Dot, timestamp: Timestamp, state: Arc<KeyState>) -> bool {
        let first = self.event.is_none();
        self.mutation = None;
        self.event.get_or_insert((dot, timestamp, state));
        first
    }

    /// The other replicas that are reachable.
    pub(super) fn targets(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.copies
            .iter()
            .filter(|(node, copy)| *node != self.me && *copy != Copy::Failed)
            .map(|(node, _)| *node)
    }

    /// The state to send, once there is an event.
    pub(super) fn state(&self) -> Option<&Arc<KeyState>> {
        self.event.as_ref().map(|(_, _, state)| state)
    }

    fn copy(&mut self, node: NodeId) -> Option<&mut Copy> {
        self.copies
            .iter_mut()
            .find(|(of, _)| *of == node)
            .map(|(_, copy)| copy)
    }

    /// A replica has the write durably.
    pub(super) fn stored(&mut self, by: NodeId) {
        if let Some(copy) = self.copy(by) {
            *copy = Copy::Durable;
        }
    }

    /// A replica became unreachable.
    pub(super) fn unreachable(&mut self, node: NodeId) {
        self.fail(node, || format!("{node} is unreachable"));
    }

    /// A replica rejected the write.
    pub(super) fn rejected(&mut self, node: NodeId, error: &Error) {
        self.fail(node, || match error {
            Error::StorageFull(_) => format!("the disk of {node} is full"),
            Error::CorruptRecord(_) => format!("the record on {node} is corrupt"),
            Error::OutcomeUnknown {
                reason: Some(reason), ..
            } => reason.clone(),
            other => format!("{node} rejected the write ({other})"),
        });
    }

    fn fail(&mut self, node: NodeId, why: impl FnOnce() -> String) {
        if let Some(copy) = self.copy(node)
            && *copy == Copy::Pending
        {
            *copy = Copy::Failed;
            self.reasons.insert(node, why());
        }
    }

    /// A replica is reachable (again). Returns whether the caller must send it the state.
    pub(super) fn reachable_again(&mut self, node: NodeId) -> bool {
        let sent = self.event.is_some();
        match self.copy(node) {
            Some(copy @ Copy::Failed) => {
                *copy = Copy::Pending;
                self.reasons.remove(&node);
                sent
            }
            _ => false,
        }
    }

    fn count(&self, wanted: Copy) -> usize {
        self.copies.iter().filter(|(_, copy)| *copy == wanted).count()
    }

    /// Done when any W copies are durable, or when W copies are no longer possible.
    pub(super) fn progress(&self, required: u8, level: Level) -> Progress {
        let required = usize::from(required);
        if self.event.is_some() && self.count(Copy::Durable) >= required {
            return Progress::Done(Ok(self.written(level)));
        }
        if self.copies.len() - self.count(Copy::Failed) < required {
            let reasons: Vec<&str> = self.reasons.values().map(String::as_str).collect();
            return Progress::Done(Err(Error::OutcomeUnknown {
                acked: self.count(Copy::Durable) as u8,
                required: required as u8,
                reason: Some(reasons.join(" and ")),
            }));
        }
        Progress::Pending
    }

    /// The same with the deliberate mistake [`quorate_core::bugs::Bug::WriteQuorumByLiveness`].
    pub(super) fn progress_by_liveness(&self, required: u8, level: Level) -> Progress {
        let alive = self.copies.len() - self.count(Copy::Failed);
        if self.event.is_some() && alive >= usize::from(required) {
            return Progress::Done(Ok(self.written(level)));
        }
        self.progress(required, level)
    }

    /// The error at the deadline.
    pub(super) fn timed_out(&self, required: u8) -> Error {
        Error::OutcomeUnknown {
            acked: self.acked(),
            required,
            reason: None,
        }
    }

    /// The number of replicas that are known to have it durably.
    pub(super) fn acked(&self) -> u8 {
        self.count(Copy::Durable) as u8
    }

    fn written(&self, level: Level) -> Response {
        let (dot, timestamp, state) = self.event.as_ref().expect("acknowledged writes have an event");
        let durable = self.copies.iter().filter(|(_, copy)| *copy == Copy::Durable);
        Response::Written(Written {
            dot: *dot,
            context: Context::new(self.keyspace, &self.key, state.clock().clone()),
            timestamp: *timestamp,
            acked: durable.map(|(node, _)| *node).collect(),
            coordinator: self.me,
            level,
        })
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
