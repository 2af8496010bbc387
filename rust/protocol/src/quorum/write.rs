//! The write coordinator: one client's put or delete, from its event to W durable copies.
//!
//! A pure tally. The coordinator feeds it answers and sends what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{Response, Written};
use crate::error::Error;
use crate::hlc::Timestamp;
use crate::ids::NodeId;
use crate::key::Key;
use crate::level::Level;
use crate::quorum::exchange::Progress;
use crate::versions::{Dot, KeyState};

/// A write in progress.
///
/// Invariants: `acked`, `failed` and the rest of `replicas` are disjoint; nobody but the own replica has acked before
/// the event exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) key: Key,
    me: NodeId,
    replicas: Vec<NodeId>,
    event: Option<(Dot, Timestamp, Arc<KeyState>)>,
    acked: BTreeSet<NodeId>,
    /// Those that will not answer: refused, or out of reach.
    failed: BTreeSet<NodeId>,
}

impl Write {
    /// A write to `replicas`, of which `alive` can be reached; `me` is one of both.
    pub(super) fn new(key: Key, me: NodeId, replicas: Vec<NodeId>, alive: &BTreeSet<NodeId>) -> Self {
        assert!(
            replicas.contains(&me),
            "only a replica of the key coordinates its writes"
        );
        let failed = replicas
            .iter()
            .copied()
            .filter(|node| !alive.contains(node))
            .collect();
        Write {
            key,
            me,
            replicas,
            event: None,
            acked: BTreeSet::new(),
            failed,
        }
    }

    /// The own replica has made the write an event. Gives the nodes that must be sent its state.
    pub(super) fn assigned(&mut self, dot: Dot, timestamp: Timestamp, state: Arc<KeyState>) -> Vec<NodeId> {
        if self.event.is_some() {
            return Vec::new();
        }
        self.event = Some((dot, timestamp, state));
        self.replicas
            .iter()
            .copied()
            .filter(|node| *node != self.me && !self.failed.contains(node))
            .collect()
    }

    /// The state to send, once there is an event.
    pub(super) fn state(&self) -> Option<&Arc<KeyState>> {
        self.event.as_ref().map(|(_, _, state)| state)
    }

    /// A replica has it durably.
    pub(super) fn stored(&mut self, by: NodeId) {
        if self.replicas.contains(&by) {
            self.failed.remove(&by);
            self.acked.insert(by);
        }
    }

    /// A replica refused it, or went out of reach.
    pub(super) fn lost(&mut self, node: NodeId) {
        if self.replicas.contains(&node) && !self.acked.contains(&node) {
            self.failed.insert(node);
        }
    }

    /// A replica that was out of reach is back: whether it must be sent the state.
    pub(super) fn back(&mut self, node: NodeId) -> bool {
        self.failed.remove(&node) && self.event.is_some()
    }

    /// Whether the write counts: W copies are durable, the own one among them (see [`crate::quorum`]).
    pub(super) fn progress(&self, required: u8, level: Level) -> Progress {
        let own = self.event.is_some() && self.acked.contains(&self.me);
        if own && self.acked.len() >= usize::from(required) {
            return Progress::Done(Ok(self.written(level)));
        }
        let possible = self.replicas.len() - self.failed.len();
        if possible < usize::from(required) || self.failed.contains(&self.me) {
            return Progress::Done(Err(self.unknown(required)));
        }
        Progress::Waiting
    }

    /// The same with the mistake that [`crate::bugs::Bugs::write_quorum_by_liveness`] makes.
    pub(super) fn progress_by_liveness(&self, required: u8, level: Level) -> Progress {
        let alive = self.replicas.len() - self.failed.len();
        if self.event.is_some() && alive >= usize::from(required) {
            return Progress::Done(Ok(self.written(level)));
        }
        self.progress(required, level)
    }

    /// What to say when nothing better can be said.
    pub(super) fn unknown(&self, required: u8) -> Error {
        Error::OutcomeUnknown {
            acked: self.acked.len() as u8,
            required,
        }
    }

    fn written(&self, level: Level) -> Response {
        let (dot, timestamp, state) = self.event.as_ref().expect("acknowledged writes have an event");
        Response::Written(Written {
            dot: *dot,
            context: state.clock().clone(),
            timestamp: *timestamp,
            acked: self
                .replicas
                .iter()
                .copied()
                .filter(|node| self.acked.contains(node))
                .collect(),
            coordinator: self.me,
            level,
        })
    }
}
