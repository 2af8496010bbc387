//! Connections: dialling, handshake, responses, detection of silent and lost nodes.

use quorate_core::error::Error;
use quorate_core::ids::{BootId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, RequestFrame, ResponseFrame};
use quorate_protocol::frame::{self, MAX_REQUEST_FRAME};

use super::connection::{
    Connection, DIAL_TIMEOUT, FIRST_DIAL_PATIENCE, LAST_OWN_ID, LinkCheck, Owner, Stage,
};
use super::endpoint::{Endpoint, Link};
use super::operation::{Kind, Stage as OperationStage};
use super::{ClientCore, ClientEffect, Step};

/// The id of the client's own requests for the keyspaces, of which there is one at a time. Those of operations are
/// above 255, and the others below are for the client's other own requests.
const KEYSPACES_PROBE: u64 = 1;
/// The deadline of the client's own requests.
const PROBE_DEADLINE_MS: u32 = 5_000;

impl ClientCore {
    /// Dials all endpoints that are due.
    pub(super) fn dial_due(&mut self, step: &mut Step<'_>) {
        let due = |endpoint: &Endpoint| matches!(endpoint.link, Link::Down { retry_at } if retry_at <= step.instant());
        let mut owners = Vec::new();
        if self.needs_seeds() {
            let seeds = self.seeds.iter().enumerate().filter(|(_, seed)| due(seed));
            owners.extend(seeds.map(|(index, _)| Owner::Seed(index)));
        }
        let nodes = self.nodes.iter().filter(|(_, node)| due(node));
        owners.extend(nodes.map(|(id, _)| Owner::Node(*id)));
        for owner in owners {
            self.last_connection += 1;
            let connection = self.last_connection;
            let endpoint = self.endpoint(owner).expect("it was just found");
            let address = endpoint.address().to_owned();
            endpoint.link = Link::Dialing { connection };
            self.connections.insert(
                connection,
                Connection::new(owner, address.clone(), step.instant()),
            );
            step.effects.push(ClientEffect::Connect { connection, address });
        }
    }

    /// The endpoint that a connection was dialled for, unless it has left the topology.
    fn endpoint(&mut self, owner: Owner) -> Option<&mut Endpoint> {
        match owner {
            Owner::Seed(index) => self.seeds.get_mut(index),
            Owner::Node(id) => self.nodes.get_mut(&id),
        }
    }

    pub(super) fn connected(&mut self, connection: u64, step: &mut Step<'_>) {
        let greeting = Connection::greeting(&self.config, self.cluster);
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        assert_eq!(
            state.stage,
            Stage::Dialing,
            "connection {connection} was established twice"
        );
        state.stage = Stage::Greeting;
        state.sent += greeting.len() as u64;
        step.effects.push(ClientEffect::Send {
            connection,
            bytes: greeting.freeze(),
        });
    }

    pub(super) fn received(&mut self, connection: u64, bytes: &[u8], step: &mut Step<'_>) {
        let cluster = self.cluster;
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        state.mark_alive(step.instant());
        state.decoder.extend(bytes);
        if matches!(state.stage, Stage::Dialing | Stage::Greeting) {
            match state.welcome(cluster) {
                Ok(None) => return,
                Ok(Some((cluster, node, boot))) => {
                    self.cluster = Some(cluster);
                    self.welcomed(connection, node, boot, step);
                }
                Err(error) => return self.lose(connection, 0, error, true, step),
            }
        }
        // Responses may end the connection or complete operations, so it is looked up again for each.
        while let Some(state) = self.connections.get_mut(&connection) {
            match state.decoder.decode::<ResponseFrame>() {
                Ok(Some(frame)) => self.answered(connection, frame, step),
                Ok(None) => break,
                Err(error) => {
                    let error =
                        Error::ConnectionLost(format!("malformed frame from {}: {error}", state.address));
                    self.lose(connection, u64::MAX, error, true, step);
                }
            }
        }
        self.route_waiting(step);
    }

    /// A node has responded to the hello.
    fn welcomed(&mut self, connection: u64, node: NodeId, boot: BootId, step: &mut Step<'_>) {
        let state = &self.connections[&connection];
        let (owner, address) = (state.owner, state.address.clone());
        if let Owner::Node(expected) = owner
            && expected != node
        {
            let error = Error::Refused(format!(
                "{address} is {node} but the topology has {expected} there: check the nodes' addresses"
            ));
            return self.lose(connection, 0, error, true, step);
        }
        let knows_members = self.directory.topology().is_some();
        if let Owner::Seed(index) = owner {
            self.seeds[index].ready(connection);
            if knows_members {
                self.seeds[index].link = Link::Unused;
            }
            let unwanted = match self.nodes.get(&node) {
                None => !self.needs_seeds(),
                Some(endpoint) => matches!(endpoint.link, Link::Ready { .. }),
            };
            if unwanted {
                self.seeds[index].link = Link::Unused;
                self.connections.remove(&connection);
                step.effects.push(ClientEffect::Disconnect { connection });
                return;
            }
        }
        let endpoint = self
            .nodes
            .entry(node)
            .or_insert_with(|| Endpoint::new(address.clone(), step.instant()));
        if let Link::Dialing { connection: other } = endpoint.link
            && other != connection
        {
            self.connections.remove(&other);
            step.effects.push(ClientEffect::Disconnect { connection: other });
        }
        if !endpoint.addresses.contains(&address) {
            endpoint.addresses.push(address);
        }
        endpoint.ready(connection);
        if knows_members {
            self.retire_seeds();
        }
        let state = self.connections.get_mut(&connection).expect("it was just read");
        state.owner = Owner::Node(node);
        state.stage = Stage::Ready { node, boot };
        self.probe(connection, step);
        self.request_keyspaces(connection, step);
    }

    /// Sends a request of the client's own.
    fn send_own_request(&mut self, connection: u64, id: u64, request: Request, step: &mut Step<'_>) {
        let state = self.connections.get_mut(&connection).expect("it was just read");
        let frame = RequestFrame {
            id,
            deadline_ms: PROBE_DEADLINE_MS,
            trace: None,
            request,
        };
        frame::encode(&frame, MAX_REQUEST_FRAME, &mut self.scratch)
            .expect("a small request fits into a frame");
        let bytes = self.scratch.split().freeze();
        state.sent += bytes.len() as u64;
        state.probe(step.instant());
        step.effects.push(ClientEffect::Send { connection, bytes });
    }

    /// Probes the node with a request for the topology.
    pub(super) fn probe(&mut self, connection: u64, step: &mut Step<'_>) {
        self.send_and_forget(connection, Request::Topology, step);
    }

    /// Sends a request of the client's own whose response no operation waits for. Several may be pending.
    pub(super) fn send_and_forget(&mut self, connection: u64, request: Request, step: &mut Step<'_>) {
        let state = self.connections.get_mut(&connection).expect("it is there");
        let id = state.own_id();
        self.send_own_request(connection, id, request, step);
    }

    /// Requests the keyspaces of a connected node: an operation names an unknown one.
    pub(super) fn request_keyspaces(&mut self, connection: u64, step: &mut Step<'_>) {
        let state = self.connections.get_mut(&connection).expect("it is there");
        // One response is enough for all operations.
        if !std::mem::replace(&mut state.listing, true) {
            self.send_own_request(connection, KEYSPACES_PROBE, Request::ListKeyspaces, step);
        }
    }

    fn answered(&mut self, connection: u64, frame: ResponseFrame, step: &mut Step<'_>) {
        if let Ok(response) = &frame.response
            && self.directory.learn(response)
        {
            self.members_changed(step);
        }
        if frame.id == KEYSPACES_PROBE
            && let Some(state) = self.connections.get_mut(&connection)
        {
            state.listing = false;
        }
        match (frame.id, frame.response) {
            // A node that is too busy to describe the cluster is dialled again, soon if the client is not open yet.
            (0..=LAST_OWN_ID, Err(error)) if !self.opened => {
                let id = frame.id;
                let error = Error::ConnectionLost(format!(
                    "it does not describe the cluster (request {id}): {error}"
                ));
                self.lose(connection, u64::MAX, error, true, step);
            }
            (0..=LAST_OWN_ID, _) => {}
            (id, response) => self.operation_answered(connection, id, response, step),
        }
    }

    /// The topology has changed: all its members are dialled.
    fn members_changed(&mut self, step: &mut Step<'_>) {
        let members: Vec<(NodeId, String)> = self
            .directory
            .members()
            .iter()
            .map(|member| (member.id, member.client_address.clone()))
            .collect();
        // A removed node keeps its connection until it closes it, and gets no more requests.
        let is_member = |id: &NodeId| members.iter().any(|(member, _)| member == id);
        self.nodes.retain(|id, _| is_member(id));
        for (id, address) in members {
            self.nodes
                .entry(id)
                .or_insert_with(|| Endpoint::new(address.clone(), step.instant()))
                .prefer(&address);
        }
        self.retire_seeds();
        self.dial_due(step);
    }

    /// Whether the configured endpoints are needed: no member is known, or none is reachable at its known addresses.
    /// After a restart of the whole cluster the addresses may have changed.
    pub(super) fn needs_seeds(&self) -> bool {
        // An endpoint has no failure before its first attempt ends, and while it is connected.
        self.directory.topology().is_none() || self.nodes.values().all(|node| node.failure.is_some())
    }

    /// The configured endpoints are not needed any longer.
    fn retire_seeds(&mut self) {
        for seed in &mut self.seeds {
            if !matches!(seed.link, Link::Dialing { .. }) {
                seed.link = Link::Unused;
            }
        }
    }

    pub(super) fn disconnected(&mut self, connection: u64, written: u64, error: Error, step: &mut Step<'_>) {
        self.lose(connection, written, error, false, step);
        self.route_waiting(step);
    }

    /// A connection is lost: its operations move to other nodes or end, and its endpoint is dialled again later.
    fn lose(&mut self, connection: u64, written: u64, error: Error, close: bool, step: &mut Step<'_>) {
        let Some(state) = self.connections.remove(&connection) else {
            return;
        };
        if close {
            step.effects.push(ClientEffect::Disconnect { connection });
        }
        if let Some(node) = state.node() {
            self.forget_leader(node);
        }
        let now = step.instant();
        let knows_members = self.directory.topology().is_some();
        if let Owner::Seed(index) = state.owner
            && !self.needs_seeds()
        {
            self.seeds[index].link = Link::Unused;
        } else if let Some(endpoint) = self.endpoint(state.owner)
            && matches!(endpoint.link, Link::Dialing { connection: at } | Link::Ready { connection: at } if at == connection)
        {
            endpoint.failed(now, error.clone(), step.rng);
        }
        // A node that is lost before the topology is known is reachable only through its seed.
        if !knows_members && let Some(node) = state.node() {
            self.nodes.remove(&node);
            for seed in &mut self.seeds {
                if matches!(seed.link, Link::Ready { connection: at } if at == connection) {
                    seed.failed(now, error.clone(), step.rng);
                }
            }
        }
        if knows_members && self.needs_seeds() {
            self.seeds.iter_mut().for_each(|seed| seed.revive(now));
        }
        if state.in_flight > 0 {
            self.operations_lost(connection, written, state.node(), &error, step);
        }
    }

    /// Checks all connections for timeouts and silent nodes.
    pub(super) fn check_links(&mut self, step: &mut Step<'_>) {
        let now = step.instant();
        for connection in self.connections.keys().copied().collect::<Vec<u64>>() {
            let Some(state) = self.connections.get_mut(&connection) else {
                continue;
            };
            if !matches!(state.stage, Stage::Ready { .. }) {
                if state.since + DIAL_TIMEOUT <= now {
                    let error =
                        Error::ConnectionLost(format!("no answer within {} s", DIAL_TIMEOUT.as_secs()));
                    self.lose(connection, 0, error, true, step);
                }
                continue;
            }
            match state.check_link(now) {
                LinkCheck::Wait { .. } => {}
                LinkCheck::Probe => self.probe(connection, step),
                LinkCheck::Suspect => self.suspect(connection, step),
                LinkCheck::GiveUp => {
                    let error = Error::ConnectionLost("it has stopped answering".to_owned());
                    self.lose(connection, u64::MAX, error, true, step);
                }
            }
        }
    }

    /// A node is silent. Its pending operations that may be repeated move to other nodes, if there are any: reads, and
    /// all requests to Raft groups.
    pub(super) fn suspect(&mut self, connection: u64, step: &mut Step<'_>) {
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        state.suspect = true;
        let Some(node) = state.node() else { return };
        self.forget_leader(node);
        let stuck: Vec<u64> = self
            .operations
            .iter()
            .filter(|(_, operation)| {
                (operation.kind == Kind::Read || operation.group.is_some())
                    && operation.target.is_none()
                    && matches!(operation.stage, OperationStage::Sent { connection: at, .. } if at == connection)
            })
            .map(|(op, _)| *op)
            .collect();
        for op in stuck {
            if self.has_alternative(op, node) {
                self.retry_elsewhere(op, node, step);
            }
        }
    }

    /// Whether the first attempt to connect to a node is still in progress, within the time that operations wait for it.
    pub(super) fn first_dial_under_way(&self, node: NodeId, now: Instant) -> bool {
        let Some(endpoint) = self.nodes.get(&node) else {
            return false;
        };
        match endpoint.link {
            _ if endpoint.tried => false,
            Link::Down { .. } => true,
            Link::Dialing { connection } => self
                .connections
                .get(&connection)
                .is_some_and(|state| state.since + FIRST_DIAL_PATIENCE > now),
            Link::Ready { .. } | Link::Unused => false,
        }
    }

    /// Whether no seed is reachable: every attempt after `since` (ever, if `None`) has failed.
    pub(super) fn seeds_failed_after(&self, since: Option<Instant>) -> bool {
        self.seeds.iter().all(|seed| match since {
            Some(since) => seed.failed_after(since),
            None => seed.failure.is_some() && matches!(seed.link, Link::Down { .. }),
        })
    }

    /// The error if no node is reachable, with the reasons. [`Error::Refused`] if one of them rejected the client.
    pub(super) fn unreachable(&self) -> Error {
        let endpoints: Vec<&Endpoint> = match self.directory.topology() {
            Some(_) => self.nodes.values().collect(),
            None => self.seeds.iter().collect(),
        };
        let failures: Vec<String> = endpoints
            .iter()
            .map(|endpoint| endpoint.describe_failure())
            .collect();
        let refused = |endpoint: &&Endpoint| matches!(&endpoint.failure, Some(failure) if matches!(failure.error, Error::Refused(_)));
        let what = format!("cannot reach the cluster at {}", failures.join(", "));
        if endpoints.iter().any(refused) {
            Error::Refused(what)
        } else {
            Error::ConnectionLost(format!(
                "{what}: check that nodes run there and that the addresses are right"
            ))
        }
    }

    /// The node on a connection, and its boot.
    pub(super) fn peer_of(&self, connection: u64) -> (Option<NodeId>, Option<BootId>) {
        match self.connections.get(&connection).map(|state| state.stage) {
            Some(Stage::Ready { node, boot }) => (Some(node), Some(boot)),
            _ => (None, None),
        }
    }
}

/// The operation and attempt of a response frame's id; `None` for the client's own requests.
pub fn operation_of(id: u64) -> Option<(u64, u8)> {
    (id > LAST_OWN_ID).then_some((id >> 8, (id & 0xff) as u8))
}

/// The id of an operation's attempt on the wire.
pub(super) fn wire_id(op: u64, attempt: u8) -> u64 {
    op << 8 | u64::from(attempt)
}
