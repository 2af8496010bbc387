//! Read repair: after the response, the merged state is sent to the replicas that a read found stale or corrupt.

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

/// The minimum interval between identical repairs of a key: a hot key is read more often than a repair takes.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// The minimum interval between timeline events about repairs of the same replicas.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of keys whose repairs are remembered.
const MAX_REMEMBERED: usize = 1_024;

/// A repair of a key, identified by its clock and its targets (each with whether its record was corrupt).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    clock: VersionVector,
    targets: Vec<(NodeId, bool)>,
}

/// The repairs that were sent recently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repairs {
    /// The last repair of each key, and until when an identical one is suppressed.
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
    /// Sends a repair to the reachable targets, unless an identical one was sent recently and no read waits for it.
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
