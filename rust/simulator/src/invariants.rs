//! The invariants of every run: one file per property.
//!
//! An [`Invariant`] observes the run and reports a violation immediately. *Safety* ("nothing bad ever happens") is checked
//! continuously, under every fault. *Liveness* ("something good eventually happens") is required only after the faults have
//! ended: progress is not guaranteed in a partition.

mod acknowledged_writes;
mod bounded_memory;
mod committed_reads;
mod creations;
mod definite_errors;
mod dots_unique;
mod durability;
mod durable_acks;
mod durable_promises;
mod election_safety;
mod exactly_once;
mod growth;
mod leader_append_only;
mod leader_completeness;
mod leftovers;
mod linearizability;
mod liveness;
mod log_matching;
mod monotone_acks;
mod no_false_siblings;
mod replicas_equal;
mod shard_liveness;
mod shard_rows;
mod stability;

mod state_machine_safety;

use std::fmt;

use quorate_consensus::control::CONTROL_GROUP;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::{Message, PartBody};
use quorate_protocol::role::{Effect, RoleId};
use quorate_raft::Raft;
use quorate_raft::types::GroupId;
use quorate_versions::KeyState;

use crate::observation::{Invariant, Observation};
use crate::servers::Seen;
use crate::world::World;

/// All invariants.
pub fn all() -> Vec<Box<dyn Invariant<World> + Send>> {
    vec![
        Box::new(acknowledged_writes::AcknowledgedWrites),
        Box::new(bounded_memory::BoundedMemory),
        Box::new(committed_reads::CommittedReads),
        Box::new(creations::Creations),
        Box::new(definite_errors::DefiniteErrors::default()),
        Box::new(dots_unique::DotsUnique::default()),
        Box::new(durability::Durability),
        Box::new(durable_acks::DurableAcks),
        Box::new(durable_promises::DurablePromises),
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(growth::Growth),
        Box::new(leader_append_only::LeaderAppendOnly::default()),
        Box::new(leader_completeness::LeaderCompleteness::default()),
        Box::new(leftovers::Leftovers),
        Box::new(linearizability::Linearizability),
        Box::new(liveness::Liveness),
        Box::new(log_matching::LogMatching::default()),
        Box::new(monotone_acks::MonotoneAcks::default()),
        Box::new(no_false_siblings::NoFalseSiblings::default()),
        Box::new(replicas_equal::ReplicasEqual),
        Box::new(shard_liveness::ShardLiveness),
        Box::new(shard_rows::ShardRows::default()),
        Box::new(stability::Stability::default()),
        Box::new(state_machine_safety::StateMachineSafety::default()),
    ]
}

/// The server of a Raft group that has just handled an event: the control plane's, or a shard's.
fn raft_server<'a>(world: &'a World, observation: Observation<'_>) -> Option<(Server, &'a Raft)> {
    let Observation::Handled { node, role, .. } = observation else {
        return None;
    };
    let (group, raft) = match role {
        RoleId::Control => (CONTROL_GROUP, world.control(node)?.raft()?),
        RoleId::Shard(group) => (group, world.shard(node, group)?.raft()?),
        _ => return None,
    };
    Some((Server { group, node }, raft))
}

/// The running servers of a Raft group.
fn raft_servers(world: &World, group: GroupId) -> Vec<Seen<'_>> {
    let raft = |node: NodeId| match group == CONTROL_GROUP {
        true => world.control(node)?.raft(),
        false => world.shard(node, group)?.raft(),
    };
    let nodes = world.nodes();
    nodes.filter_map(|node| Some(Seen(node, raft(node)?))).collect()
}

/// One node's server of one Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    group: GroupId,
    node: NodeId,
}

impl Server {
    /// Adds the group to an error.
    fn in_group(self, result: Result<(), String>) -> Result<(), String> {
        result.map_err(|why| format!("in {}: {why}", self.group))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.node, self.group)
    }
}

/// The states of keys that these effects send to other roles.
fn states_sent<'a>(
    effects: &'a [Effect],
) -> impl Iterator<Item = (Option<&'a Key>, KeyspaceId, &'a KeyState)> {
    effects.iter().flat_map(|effect| {
        let mut states: Vec<(Option<&'a Key>, KeyspaceId, &'a KeyState)> = Vec::new();
        if let Effect::SendLocal {
            to: RoleId::Coordinator(keyspace),
            message: LocalMessage::Assigned { state, .. },
            ..
        } = effect
        {
            states.push((None, *keyspace, &**state));
        }
        if let Effect::Send { to, message, .. } = effect
            && let RoleId::Coordinator(keyspace) | RoleId::Replica(keyspace) = to.role
        {
            match message {
                Message::Store { key, state } | Message::Heal { key, state } => {
                    states.push((Some(key), keyspace, &**state))
                }
                Message::Fetched { state } => states.push((None, keyspace, &**state)),
                Message::Parts(parts) => {
                    states.extend(parts.iter().filter_map(|part| match &part.body {
                        PartBody::Store { key, state } => Some((Some(key), keyspace, &**state)),
                        PartBody::Fetched { state } => Some((None, keyspace, &**state)),
                        PartBody::Stored | PartBody::Fetch { .. } | PartBody::Failed(_) => None,
                    }));
                }
                Message::FetchedRange { rows, .. } => {
                    states.extend(rows.iter().map(|(key, state)| (Some(key), keyspace, &**state)));
                }
                _ => {}
            }
        }
        states
    })
}
