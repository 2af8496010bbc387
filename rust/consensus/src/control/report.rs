//! Reports of the control role: the timeline, and its claim about the group.

use quorate_core::time::Instant;
use quorate_protocol::api::{GroupClaim, Membership};
use quorate_protocol::role::Effect;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::status::Activity;

use crate::control::Control;
use crate::control::state::{CONTROL_GROUP, ControlPlane};
use crate::host::Host;
use crate::report;

/// The last report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reporter {
    last: Option<GroupClaim>,
}

impl Reporter {
    /// Reports the differences between two states.
    pub(super) fn changed(&self, before: &ControlPlane, after: &ControlPlane, effects: &mut Vec<Effect>) {
        let mut emit = |event| effects.push(Effect::Emit(event));
        let generation = after.generation();
        emit(TimelineEvent::TopologyChanged { generation });
        for (id, keyspace) in after.keyspaces() {
            let name = keyspace.settings.name.clone();
            match before.keyspaces().get(id) {
                None => emit(TimelineEvent::KeyspaceCreated { keyspace: name }),
                Some(old) if old != keyspace => emit(TimelineEvent::KeyspaceAltered { keyspace: name }),
                Some(_) => {}
            }
        }
        let dropped = before
            .keyspaces()
            .iter()
            .filter(|(id, _)| !after.keyspaces().contains_key(id));
        for (_, keyspace) in dropped {
            let name = keyspace.settings.name.clone();
            emit(TimelineEvent::KeyspaceDropped { keyspace: name });
        }
    }

    /// Reports the server's claim if it has changed, or after a message of the group (`from_peer`).
    pub(super) fn report(&mut self, claim: GroupClaim, from_peer: bool, effects: &mut Vec<Effect>) {
        let timeless = GroupClaim {
            heard_micros: None,
            activity: Activity::default(),
            ..claim.clone()
        };
        if self.last.as_ref() == Some(&timeless) && !from_peer {
            return;
        }
        if let (None, Some(reason)) = (
            self.last.as_ref().and_then(|last| last.problem.as_ref()),
            &claim.problem,
        ) {
            effects.push(Effect::Emit(TimelineEvent::GroupBroken {
                group: claim.group,
                reason: reason.clone(),
            }));
        }
        self.last = Some(timeless);
        effects.push(Effect::Group(Box::new(claim)));
    }
}

impl Control {
    /// The cluster, as this node knows it.
    pub(super) fn membership(&self) -> Membership {
        let configuration = self.raft().map(|raft| raft.configuration());
        Membership {
            topology: self.topology(),
            version: self.applied().map_or(0, |(_, state)| state.version()),
            voters: configuration.map_or(Vec::new(), |members| members.all_voters().collect()),
            learners: configuration.map_or(Vec::new(), |members| members.learners.iter().copied().collect()),
        }
    }

    /// This node's server's claim about the group.
    pub(super) fn claim(&self, now: Instant) -> GroupClaim {
        let elections = self.host().map_or(0, Host::elections);
        let name = (CONTROL_GROUP, "control");
        let claim = report::claim(name, self.me(), self.raft(), self.broken(), elections, now);
        GroupClaim {
            // The host has applied this, not only received it.
            applied: self.host().map_or(claim.applied, |host| host.applied().0),
            ..claim
        }
    }
}
