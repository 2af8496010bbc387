//! Which node an operation goes to: the first of the key's replicas that can be expected to respond.
//!
//! In this order: replicas by preference, then the other members (they forward the request), and of these first the
//! ones that respond, then the suspected, then those that have rejected the operation before. An operation waits
//! briefly for a node that is being dialled for the first time, so that a new client does not send its first puts
//! through other replicas than the following ones.
//!
//! A request to a Raft group goes to the leader reported in the latest responses; if none was reported, to the member
//! that the ring prefers, which is the first leader. Any node accepts it and finds the leader. The stale reads of one
//! client go to the same member, so that they do not go back in time.

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

/// The routing decision for an operation.
pub(super) enum Choice {
    Send(u64),
    Wait,
    Fail(Error),
}

impl ClientCore {
    /// The routing decision for an operation.
    pub(super) fn choose(&self, op: u64, now: Instant) -> Choice {
        let operation = &self.operations[&op];
        let Stage::Waiting { since } = operation.stage else {
            return self.choose_since(operation, now, now);
        };
        self.choose_since(operation, since, now)
    }

    /// `since`: the start of the operation's wait for a node.
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
        let replicas = self.preference_list(operation);
        let others = self.rotated_members().filter(|node| !replicas.contains(node));
        let mut suspected = None;
        let mut already_tried = None;
        let mut may_connect = false;
        for node in replicas.iter().copied().chain(others) {
            let tried = operation.tried.contains(&node);
            match self.ready(node) {
                Some((connection, state)) => {
                    let place = match (tried, state.suspect) {
                        (false, false) => return Choice::Send(connection),
                        (false, true) => &mut suspected,
                        (true, _) => &mut already_tried,
                    };
                    place.get_or_insert(connection);
                }
                None if !tried && self.first_dial_under_way(node, now) => return Choice::Wait,
                None => {
                    may_connect |= !self
                        .nodes
                        .get(&node)
                        .is_none_or(|endpoint| endpoint.failed_after(since))
                }
            }
        }
        if self.needs_seeds() {
            may_connect |= self.seeds.iter().any(|seed| !seed.failed_after(since));
        }
        match suspected.or(already_tried) {
            Some(connection) => Choice::Send(connection),
            None if may_connect => Choice::Wait,
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
                    endpoint.describe_failure()
                );
                Choice::Fail(match endpoint.was_refused() {
                    true => Error::ConnectionRefused(what),
                    false => Error::ConnectionLost(what),
                })
            }
            Some(_) => Choice::Wait,
        }
    }

    /// All members, starting with one that differs from client to client.
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

    /// Whether another node could take an operation.
    pub(super) fn has_alternative(&self, op: u64, node: NodeId) -> bool {
        let tried = &self.operations[&op].tried;
        let usable = |id: NodeId| self.ready(id).is_some_and(|(_, state)| !state.suspect);
        self.nodes
            .keys()
            .any(|id| *id != node && !tried.contains(id) && usable(*id))
    }

    /// Whether another replica of the operation's key is usable: not tried, and not on `connection`.
    pub(super) fn has_another_replica(&self, op: u64, connection: u64) -> bool {
        let operation = &self.operations[&op];
        let usable = |node: &NodeId| {
            !operation.tried.contains(node)
                && self
                    .ready(*node)
                    .is_some_and(|(other, state)| other != connection && !state.suspect)
        };
        self.preference_list(operation).iter().any(usable)
    }

    /// The node that a request for this key would go to: the first of its usable replicas, or the first of all if none
    /// is. `None` while too little is known.
    pub(super) fn preferred_node(&self, keyspace: KeyspaceId, key: &Key) -> Option<NodeId> {
        let replicas = self.directory.replicas_of(keyspace, key);
        let answers = |node: &&NodeId| self.ready(**node).is_some_and(|(_, state)| !state.suspect);
        replicas.iter().find(answers).or(replicas.first()).copied()
    }

    /// The nodes for an operation, most preferred first.
    fn preference_list(&self, operation: &Operation) -> Cow<'_, [NodeId]> {
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

    /// Records the leader that a response reports.
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
        // A follower's report may be outdated.
        if certain || !self.leaders.contains_key(&group) {
            self.leaders.insert(group, leader);
        }
    }

    /// A node is lost or silent: it no longer counts as a leader.
    pub(super) fn forget_leader(&mut self, node: NodeId) {
        self.leaders.retain(|_, leader| *leader != node);
    }

    /// A connection to a group, the leader's if possible.
    pub(super) fn connection_to_group(&self, keyspace: KeyspaceId, group: GroupId) -> Option<u64> {
        let leader = self.leaders.get(&group).into_iter();
        let members = self.directory.members_of(keyspace, group).unwrap_or(&[]);
        let mut nodes = leader.chain(members);
        nodes.find_map(|node| self.ready(*node).map(|(connection, _)| connection))
    }

    /// An operation waits: the nodes that it could go to are dialled soon.
    pub(super) fn retry_soon(&mut self, op: u64, now: Instant) {
        match self.operations[&op].target {
            Some(node) => self
                .nodes
                .get_mut(&node)
                .into_iter()
                .for_each(|endpoint| endpoint.retry_soon(now)),
            None => self
                .nodes
                .values_mut()
                .for_each(|endpoint| endpoint.retry_soon(now)),
        }
        if self.needs_seeds() {
            self.seeds.iter_mut().for_each(|seed| seed.retry_soon(now));
        }
    }
}
