//! Read repair: after the answer, replicas that a read found wanting are sent what they lack.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::dedup::Dedup;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::time::{Instant, Now};
use quorate_protocol::message::Message;
use quorate_protocol::role::Effect;
use quorate_protocol::telemetry::{TimelineEvent, TraceContext};
use quorate_versions::VersionVector;

use super::{Coordinator, REPAIR_TIMEOUT};
use crate::read::Repair;

/// How long the same repair of the same key is not sent again: a hot key is read far more often than a repair takes.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// How long repairs of the same replicas go on without another event on the timeline.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// The most keys whose repairs are remembered.
const MAX_REMEMBERED: usize = 1_024;

/// A repair of a key, told from another by its clock and by whom it was sent to (and who of them was corrupt).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    clock: VersionVector,
    targets: Vec<(NodeId, bool)>,
}

/// The repairs that were sent lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repairs {
    /// What a key's replicas were sent, and until when that counts.
    sent: BTreeMap<Key, (Sent, Instant)>,
    reported: Dedup<Vec<NodeId>>,
}

impl Repairs {
    /// Whether this repair of the key is due.
    fn is_due(&mut self, key: &Key, repair: Sent, now: Instant) -> bool {
        let same = |(sent, until): &(Sent, Instant)| *sent == repair && *until > now;
        if self.sent.get(key).is_some_and(same) {
            return false;
        }
        if self.sent.len() >= MAX_REMEMBERED {
            self.sent.clear();
        }
        self.sent.insert(key.clone(), (repair, now + REPAIR_INTERVAL));
        true
    }
}

impl Coordinator {
    /// Sends a repair to those that can be reached, unless it was sent a moment ago and nobody waits for it.
    pub(super) fn repair(
        &mut self,
        key: Key,
        repair: Repair,
        (id, trace): (u64, Option<TraceContext>),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let stale = repair.stale.into_iter().map(|node| (node, false));
        let corrupt = repair.corrupt.into_iter().map(|node| (node, true));
        let all = stale.chain(corrupt);
        let targets: Vec<(NodeId, bool)> = all.filter(|(node, _)| self.alive(*node)).collect();
        let sent = Sent {
            clock: repair.state.clock().clone(),
            targets: targets.clone(),
        };
        let due = self.repairs.is_due(&key, sent, now.instant) || repair.awaited;
        if targets.is_empty() || !due {
            return;
        }
        let header = self.header(id, now.instant + REPAIR_TIMEOUT, trace);
        for (node, corrupt) in &targets {
            let (key, state) = (key.clone(), repair.state.clone());
            let message = match corrupt {
                true => Message::Heal { key, state },
                false => Message::Store { key, state },
            };
            let to = self.replica(*node);
            self.outgoing.send(to, header, message, effects);
        }
        let replicas: Vec<NodeId> = targets.into_iter().map(|(node, _)| node).collect();
        let quiet_until = now.instant + EVENT_INTERVAL;
        if self
            .repairs
            .reported
            .is_new(replicas.clone(), quiet_until, now.instant)
        {
            let keyspace = self.keyspace.settings.name.clone();
            effects.push(Effect::Emit(TimelineEvent::ReadRepaired { keyspace, replicas }));
        }
    }
}
