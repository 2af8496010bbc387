//! The write coordinator: one client's put or delete, from its event to W durable copies.
//!
//! A pure tally. The coordinator feeds it answers and sends what it says.

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

/// What a client wants to change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mutation {
    pub(super) key: Key,
    /// `None` deletes.
    pub(super) value: Option<Bytes>,
    pub(super) context: Option<Context>,
    pub(super) write_id: WriteId,
}

/// What is known of one replica's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Copy {
    /// It may answer yet.
    Pending,
    /// It said that it has the write durably.
    Durable,
    /// It refused, or is out of reach.
    Failed,
}

/// A write in progress.
///
/// Invariants: `me` is one of the replicas; nobody has a durable copy before there is an event (whose name may arrive
/// after the news that it is durable: messages overtake each other); a durable copy stays one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    keyspace: KeyspaceId,
    pub(super) key: Key,
    me: NodeId,
    /// The most preferred first.
    copies: Vec<(NodeId, Copy)>,
    event: Option<(Dot, Timestamp, Arc<KeyState>)>,
    /// Why copies were lost.
    reasons: BTreeMap<NodeId, String>,
    /// What was asked, as long as another replica may be asked to do it: until there is an event.
    mutation: Option<Mutation>,
}

impl Write {
    /// A write to `replicas`, of which `alive` can be reached; `me` is one of both.
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

    /// Keeps what was asked, in case that the own replica cannot do it.
    pub(super) fn keep_mutation(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
    }

    /// What was asked, to ask another replica instead.
    pub(super) fn take_mutation(&mut self) -> Option<Mutation> {
        self.mutation.take()
    }

    /// The own replica has made the write an event. Whether that is news: then [`Write::targets`] are to be sent it.
    pub(super) fn assigned(&mut self, dot: Dot, timestamp: Timestamp, state: Arc<KeyState>) -> bool {
        let first = self.event.is_none();
        self.mutation = None;
        self.event.get_or_insert((dot, timestamp, state));
        first
    }

    /// The other replicas that can be reached.
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

    /// A replica has it durably.
    pub(super) fn stored(&mut self, by: NodeId) {
        if let Some(copy) = self.copy(by) {
            *copy = Copy::Durable;
        }
    }

    /// A replica went out of reach.
    pub(super) fn unreachable(&mut self, node: NodeId) {
        self.fail(node, || format!("{node} is out of reach"));
    }

    /// A replica refused it.
    pub(super) fn rejected(&mut self, node: NodeId, error: &Error) {
        self.fail(node, || match error {
            Error::StorageFull(_) => format!("the disk of {node} is full"),
            Error::CorruptRecord(_) => format!("the record on {node} is corrupt"),
            Error::OutcomeUnknown {
                reason: Some(reason), ..
            } => reason.clone(),
            other => format!("{node} refused it ({other})"),
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

    /// A replica can be reached (again): whether it must be sent the state now.
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

    /// Whether the write counts: any W copies are durable.
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

    /// The same with the mistake that [`quorate_core::bugs::Bug::WriteQuorumByLiveness`] makes.
    pub(super) fn progress_by_liveness(&self, required: u8, level: Level) -> Progress {
        let alive = self.copies.len() - self.count(Copy::Failed);
        if self.event.is_some() && alive >= usize::from(required) {
            return Progress::Done(Ok(self.written(level)));
        }
        self.progress(required, level)
    }

    /// What to say when the time is up.
    pub(super) fn timed_out(&self, required: u8) -> Error {
        Error::OutcomeUnknown {
            acked: self.acked(),
            required,
            reason: None,
        }
    }

    /// How many replicas have it durably, as far as is known.
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
