//! Which node an operation goes to: the first of the key's replicas that can be expected to answer.
//!
//! In this order: replicas by preference, then the other members (they hand the request on), and of these first the
//! ones that answer, then the suspected, then those that have turned the operation down before. A node that is being
//! dialled for the first time is waited for, shortly, so that a client that has just begun does not send its first puts
//! through other replicas than the following ones.
//!
//! A request to a Raft group goes to the member that leads, as the latest answers said; if none has said so, to the member
//! that the ring prefers, which leads first. Any node takes it and finds the leader. A stale read goes to any member, from
//! one client always to the same, so that what it sees does not jump back.

use std::borrow::Cow;

use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::Response;
use quorate_raft::types::GroupId;

use super::ClientCore;
use super::connection::Connection;
use super::endpoint::Link;
use super::operation::{Operation, Stage};

/// What to do with an operation now.
pub(super) enum Choice {
    Send(u64),
    Wait,
    Fail(Error),
}

impl ClientCore {
    /// What to do with an operation now.
    pub(super) fn choose(&self, op: u64, now: Instant) -> Choice {
        let operation = &self.operations[&op];
        let Stage::Waiting { since } = operation.stage else {
            return self.choose_since(operation, now, now);
        };
        self.choose_since(operation, since, now)
    }

    /// `since`: the operation has had nowhere to go from then on.
    fn choose_since(&self, operation: &Operation, since: Instant, now: Instant) -> Choice {
        if self.directory.topology().is_none() {
            return if self.seeds_failed_after(Some(since)) {
                Choice::Fail(self.unreachable())
            } else {
                Choice::Wait
            };
        }
        if let Some(node) = operation.target {
            return self.choose_target(node, since);
        }
        let replicas = self.preferred(operation);
        let others = self.rotated_members().filter(|node| !replicas.contains(node));
        let mut reserve = None;
        let mut last_resort = None;
        let mut hope = false;
        for node in replicas.iter().copied().chain(others) {
            let tried = operation.tried.contains(&node);
            match self.ready(node) {
                Some((connection, state)) => {
                    let place = match (tried, state.suspect) {
                        (false, false) => return Choice::Send(connection),
                        (false, true) => &mut reserve,
                        (true, _) => &mut last_resort,
                    };
                    place.get_or_insert(connection);
                }
                None if !tried && self.first_dial_under_way(node, now) => return Choice::Wait,
                None => {
                    hope |= !self
                        .nodes
                        .get(&node)
                        .is_none_or(|endpoint| endpoint.failed_after(since))
                }
            }
        }
        if self.needs_seeds() {
            hope |= self.seeds.iter().any(|seed| !seed.failed_after(since));
        }
        match reserve.or(last_resort) {
            Some(connection) => Choice::Send(connection),
            None if hope => Choice::Wait,
            None => Choice::Fail(self.unreachable()),
        }
    }

    fn choose_target(&self, node: NodeId, since: Instant) -> Choice {
        if let Some((connection, _)) = self.ready(node) {
            return Choice::Send(connection);
        }
        match self.nodes.get(&node) {
            None => {
                let members: Vec<String> = self.nodes.keys().map(NodeId::to_string).collect();
                Choice::Fail(Error::NotFound(format!(
                    "{node} is not a member of the cluster: the members are {}",
                    members.join(", ")
                )))
            }
            Some(endpoint) if endpoint.failed_after(since) => {
                let what = format!(
                    "cannot reach {node} at {}: check that it runs",
                    endpoint.complaint()
                );
                Choice::Fail(match endpoint.was_refused() {
                    true => Error::ConnectionRefused(what),
                    false => Error::ConnectionLost(what),
                })
            }
            Some(_) => Choice::Wait,
        }
    }

    /// All members, beginning with one that differs from client to client.
    fn rotated_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.directory.members();
        let first = self.config.client_id as usize % members.len().max(1);
        members[first..]
            .iter()
            .chain(&members[..first])
            .map(|member| member.id)
    }

    fn ready(&self, node: NodeId) -> Option<(u64, &Connection)> {
        match self.nodes.get(&node)?.link {
            Link::Ready { connection } => Some((connection, self.connections.get(&connection)?)),
            _ => None,
        }
    }

    /// Whether an operation could go to another node that answers.
    pub(super) fn has_alternative(&self, op: u64, node: NodeId) -> bool {
        let tried = &self.operations[&op].tried;
        let usable = |id: NodeId| self.ready(id).is_some_and(|(_, state)| !state.suspect);
        self.nodes
            .keys()
            .any(|id| *id != node && !tried.contains(id) && usable(*id))
    }

    /// Whether a replica of the operation's key answers that was not asked, and is not behind `connection`.
    pub(super) fn has_another_replica(&self, op: u64, connection: u64) -> bool {
        let operation = &self.operations[&op];
        let usable = |node: &NodeId| {
            !operation.tried.contains(node)
                && self
                    .ready(*node)
                    .is_some_and(|(other, state)| other != connection && !state.suspect)
        };
        self.preferred(operation).iter().any(usable)
    }

    /// The node that a request for this key would go to: the first of its replicas that answers, or the first of all when none
    /// does. `None` while too little is known.
    pub(super) fn first_to_ask(&self, keyspace: KeyspaceId, key: &Key) -> Option<NodeId> {
        let replicas = self.directory.replicas_of(keyspace, key);
        let answers = |node: &&NodeId| self.ready(**node).is_some_and(|(_, state)| !state.suspect);
        replicas.iter().find(answers).or(replicas.first()).copied()
    }

    /// The nodes that are to be asked, most preferred first.
    fn preferred(&self, operation: &Operation) -> Cow<'_, [NodeId]> {
        let Some(group) = operation.group else {
            return self.directory.replicas(&operation.request).into();
        };
        let keyspace = operation.request.keyspace();
        let members = keyspace.and_then(|keyspace| self.directory.members_of(keyspace, group));
        let mut nodes = members.unwrap_or(&[]).to_vec();
        if operation.request.is_stale_read() {
            let turn = self.config.client_id as usize % nodes.len().max(1);
            nodes.rotate_left(turn);
        } else if let Some(leader) = self.leaders.get(&group) {
            nodes.retain(|node| node != leader);
            nodes.insert(0, *leader);
        }
        nodes.into()
    }

    /// An answer says who leads.
    pub(super) fn learn_leader(&mut self, group: GroupId, response: &Response) {
        let (leader, certain) = match response {
            Response::Committed(committed) => (Some(committed.leader), true),
            Response::SessionOpened { leader, .. } => (Some(*leader), true),
            Response::Records { view, .. }
            | Response::RecordPage { view, .. }
            | Response::LogPage { view, .. } => (view.leader, view.staleness_micros == Some(0)),
            _ => return,
        };
        let Some(leader) = leader else { return };
        // What a follower has heard may be out of date.
        if certain || !self.leaders.contains_key(&group) {
            self.leaders.insert(group, leader);
        }
    }

    /// A node is gone or silent: it does not count as a leader any longer.
    pub(super) fn forget_leader(&mut self, node: NodeId) {
        self.leaders.retain(|_, leader| *leader != node);
    }

    /// A connection on which a group can be told something.
    pub(super) fn connection_to_group(&self, keyspace: KeyspaceId, group: GroupId) -> Option<u64> {
        let leader = self.leaders.get(&group).into_iter();
        let members = self.directory.members_of(keyspace, group).unwrap_or(&[]);
        let mut nodes = leader.chain(members);
        nodes.find_map(|node| self.ready(*node).map(|(connection, _)| connection))
    }

    /// Somebody waits: the nodes that could help are dialled soon.
    pub(super) fn hurry(&mut self, op: u64, now: Instant) {
        match self.operations[&op].target {
            Some(node) => self
                .nodes
                .get_mut(&node)
                .into_iter()
                .for_each(|endpoint| endpoint.hurry(now)),
            None => self.nodes.values_mut().for_each(|endpoint| endpoint.hurry(now)),
        }
        if self.needs_seeds() {
            self.seeds.iter_mut().for_each(|seed| seed.hurry(now));
        }
    }
}
