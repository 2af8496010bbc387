//! Connections: dialling, greeting, listening, noticing that a node is silent or gone.

use quorate_core::error::Error;
use quorate_core::ids::{BootId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, RequestFrame, ResponseFrame};
use quorate_protocol::frame::{self, MAX_REQUEST_FRAME};

use super::connection::{Care, Connection, DIAL_TIMEOUT, FIRST_DIAL_PATIENCE, LAST_OWN_ID, Owner, Stage};
use super::endpoint::{Endpoint, Link};
use super::operation::{Kind, Stage as OperationStage};
use super::{ClientCore, ClientEffect, Step};

/// The id of the client's own requests for the keyspaces, of which there is one at a time. Those of operations are above 255,
/// and what is left below is for whatever else the client asks by itself.
const KEYSPACES_PROBE: u64 = 1;
/// The deadline of the client's own requests.
const PROBE_DEADLINE_MS: u32 = 5_000;

impl ClientCore {
    /// Dials whatever is due.
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
        state.hear(step.instant());
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
        // Answers may end the connection or complete operations, so it is looked up anew for each.
        while let Some(state) = self.connections.get_mut(&connection) {
            match state.decoder.decode::<ResponseFrame>() {
                Ok(Some(frame)) => self.answered(connection, frame, step),
                Ok(None) => break,
                Err(error) => {
                    let error = Error::ConnectionLost(format!("{} sent nonsense: {error}", state.address));
                    self.lose(connection, u64::MAX, error, true, step);
                }
            }
        }
        self.route_waiting(step);
    }

    /// A node has answered the hello.
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
                self.seeds[index].link = Link::Spent;
            }
            let unwanted = match self.nodes.get(&node) {
                None => !self.needs_seeds(),
                Some(endpoint) => matches!(endpoint.link, Link::Ready { .. }),
            };
            if unwanted {
                self.seeds[index].link = Link::Spent;
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
            self.spend_seeds();
        }
        let state = self.connections.get_mut(&connection).expect("it was just read");
        state.owner = Owner::Node(node);
        state.stage = Stage::Ready { node, boot };
        self.probe(connection, step);
        self.ask_for_keyspaces(connection, step);
    }

    /// Sends a request of the client's own.
    fn ask(&mut self, connection: u64, id: u64, request: Request, step: &mut Step<'_>) {
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

    /// Asks whether the node is there, and what the cluster looks like.
    pub(super) fn probe(&mut self, connection: u64, step: &mut Step<'_>) {
        self.tell(connection, Request::Topology, step);
    }

    /// Sends something whose answer nobody waits for. An earlier one may not be answered yet.
    pub(super) fn tell(&mut self, connection: u64, request: Request, step: &mut Step<'_>) {
        let state = self.connections.get_mut(&connection).expect("it is there");
        let id = state.own_id();
        self.ask(connection, id, request, step);
    }

    /// Asks a connected node, if there is one, for its keyspaces: an operation names one that is not known.
    pub(super) fn ask_for_keyspaces(&mut self, connection: u64, step: &mut Step<'_>) {
        let state = self.connections.get_mut(&connection).expect("it is there");
        // One answer is enough for all who wait.
        if !std::mem::replace(&mut state.listing, true) {
            self.ask(connection, KEYSPACES_PROBE, Request::ListKeyspaces, step);
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
            // A node too busy to say what the cluster looks like is asked again, soon if that is what we wait for.
            (0..=LAST_OWN_ID, Err(error)) if !self.opened => {
                let id = frame.id;
                let error =
                    Error::ConnectionLost(format!("it does not say what it knows (request {id}): {error}"));
                self.lose(connection, u64::MAX, error, true, step);
            }
            (0..=LAST_OWN_ID, _) => {}
            (id, response) => self.operation_answered(connection, id, response, step),
        }
    }

    /// The topology is new: whoever is in it gets a connection.
    fn members_changed(&mut self, step: &mut Step<'_>) {
        let members: Vec<(NodeId, String)> = self
            .directory
            .members()
            .iter()
            .map(|member| (member.id, member.client_address.clone()))
            .collect();
        // A node that was removed keeps the connection it has until it closes it, and gets no more requests.
        let is_member = |id: &NodeId| members.iter().any(|(member, _)| member == id);
        self.nodes.retain(|id, _| is_member(id));
        for (id, address) in members {
            self.nodes
                .entry(id)
                .or_insert_with(|| Endpoint::new(address.clone(), step.instant()))
                .prefer(&address);
        }
        self.spend_seeds();
        self.dial_due(step);
    }

    /// Whether only the endpoints that the user named can help: no member is known, or none can be reached at the
    /// addresses that are known. After a restart of the whole cluster it may be elsewhere.
    pub(super) fn needs_seeds(&self) -> bool {
        // An endpoint is without a failure from its first attempt on, and while it is connected.
        self.directory.topology().is_none() || self.nodes.values().all(|node| node.failure.is_some())
    }

    /// The members can be reached without the endpoints that the user named.
    fn spend_seeds(&mut self) {
        for seed in &mut self.seeds {
            if !matches!(seed.link, Link::Dialing { .. }) {
                seed.link = Link::Spent;
            }
        }
    }

    pub(super) fn disconnected(&mut self, connection: u64, written: u64, error: Error, step: &mut Step<'_>) {
        self.lose(connection, written, error, false, step);
        self.route_waiting(step);
    }

    /// A connection is no more: its operations go elsewhere or end, and its endpoint is dialled again later.
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
            self.seeds[index].link = Link::Spent;
        } else if let Some(endpoint) = self.endpoint(state.owner)
            && matches!(endpoint.link, Link::Dialing { connection: at } | Link::Ready { connection: at } if at == connection)
        {
            endpoint.failed(now, error.clone(), step.rng);
        }
        // A node that was met before the topology was known, and is lost before it: only its seed knows the way back.
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

    /// Looks after the connections that are silent or take too long.
    pub(super) fn care(&mut self, step: &mut Step<'_>) {
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
            match state.care(now) {
                Care::Nothing { .. } => {}
                Care::Probe => self.probe(connection, step),
                Care::Suspect => self.suspect(connection, step),
                Care::GiveUp => {
                    let error = Error::ConnectionLost("it has stopped answering".to_owned());
                    self.lose(connection, u64::MAX, error, true, step);
                }
            }
        }
    }

    /// A node is silent. What may be asked twice and waits for it is sent to others, if there are any: reads, and whatever
    /// is for a Raft group.
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

    /// Whether the first attempt to reach a node is still worth waiting for.
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
            Link::Ready { .. } | Link::Spent => false,
        }
    }

    /// Whether no seed can be hoped for: every attempt after `since` (ever, if `None`) has failed.
    pub(super) fn seeds_failed_after(&self, since: Option<Instant>) -> bool {
        self.seeds.iter().all(|seed| match since {
            Some(since) => seed.failed_after(since),
            None => seed.failure.is_some() && matches!(seed.link, Link::Down { .. }),
        })
    }

    /// No node can be reached, and why. [`Error::Refused`] when one of them said no.
    pub(super) fn unreachable(&self) -> Error {
        let endpoints: Vec<&Endpoint> = match self.directory.topology() {
            Some(_) => self.nodes.values().collect(),
            None => self.seeds.iter().collect(),
        };
        let complaints: Vec<String> = endpoints.iter().map(|endpoint| endpoint.complaint()).collect();
        let refused = |endpoint: &&Endpoint| matches!(&endpoint.failure, Some(failure) if matches!(failure.error, Error::Refused(_)));
        let what = format!("cannot reach the cluster at {}", complaints.join(", "));
        if endpoints.iter().any(refused) {
            Error::Refused(what)
        } else {
            Error::ConnectionLost(format!(
                "{what}: check that nodes run there and that the addresses are right"
            ))
        }
    }

    /// Who answers on a connection.
    pub(super) fn answering(&self, connection: u64) -> (Option<NodeId>, Option<BootId>) {
        match self.connections.get(&connection).map(|state| state.stage) {
            Some(Stage::Ready { node, boot }) => (Some(node), Some(boot)),
            _ => (None, None),
        }
    }
}

/// Whether a response frame's id is that of an operation, and then which one and which of its attempts.
pub fn operation_of(id: u64) -> Option<(u64, u8)> {
    (id > LAST_OWN_ID).then_some((id >> 8, (id & 0xff) as u8))
}

/// The id of an operation's attempt on the wire.
pub(super) fn wire_id(op: u64, attempt: u8) -> u64 {
    op << 8 | u64::from(attempt)
}
