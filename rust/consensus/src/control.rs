//! The control plane: the cluster's members and keyspaces.
//!
//! # The idea
//! The nodes agree on the state of one small Raft group ([`ControlPlane`], group [`CONTROL_GROUP`]): the
//! members, the ring, the keyspaces. The first seven members by id are its voters, the others are learners.
//! So a keyspace exists when a majority of the voters has its creation durably; it is never forgotten,
//! whichever nodes are down.
//!
//! Each node has one control role: its server of that group, and the entry point for changes.
//!
//! ```text
//!   client ──▶ control role ── Propose ──▶ leader's control role ──▶ group: log, majority, applied
//!   client ◀── control role ◀── Forwarded ──────┘                          │ on every node
//!                                                 node role ◀── Keyspaces: these roles must exist
//! ```
//!
//! # The path of a request
//! * A change (create, alter, drop) is proposed at the leader. A control role that knows no leader waits for
//!   one, until shortly before the deadline; then, nothing having been proposed, the result is
//!   [`Unavailable`](quorate_core::error::Error::Unavailable): definitely not done.
//! * A change whose answer was lost is retried under the same id ([`Change::id`]); the state machine executes
//!   each id once. Only at the deadline is the result
//!   [`OutcomeUnknown`](quorate_core::error::Error::OutcomeUnknown).
//! * A change is answered when all nodes that the leader can reach serve the new state, or after
//!   [`SERVE_TIMEOUT`]: a client that contacts any of them next finds the keyspace.
//! * A list of keyspaces is as recent as the leader's if there is a leader; without one it is what this node
//!   knows.
//! * A request for a keyspace that is unknown to this node waits until the node has caught up with the
//!   leader. Then it is passed to the keyspace's coordinator or forwarder, or fails because there is no such
//!   keyspace.
//!
//! # Bootstrap
//! In a new cluster all servers start with the same configuration. The lowest voter does not wait for an
//! election timeout: it starts an election when it sees a majority. The first leader proposes the bootstrap;
//! the first one committed counts.
//!
//! # Local knowledge
//! After a restart a server has a log but does not know how much of it is committed, until a leader reports
//! it. A node without reachable peers must still serve what it has. So each new state is also saved as it was
//! applied, beside the log: what was committed once stays true, though it may be stale. It is served, and a
//! change is answered, when it is saved ([`known`]): a node that is killed after the answer still serves the
//! keyspace after a restart, even alone. If the disk has no room, the state is served unsaved, and saved when
//! there is room.
//!
//! # Dropped keyspaces
//! When the node role has ended the roles of a dropped keyspace, and the state without it is saved, so that
//! they do not start again, their data on disk is removed in the background ([`gc`]).

mod gc;
mod known;
mod pending;
mod proposals;
mod readiness;
mod report;
mod server;
pub mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::attempts;
use quorate_core::contract::{Rng, Role};
use quorate_core::dedup::Dedup;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};
use quorate_protocol::control_command::Command;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect, Event, RoleId, Surroundings};
use quorate_protocol::topology::{MAX_VOTERS, Topology};
use quorate_raft::Raft;
use quorate_raft::configuration::Configuration;
use quorate_raft::settings::{Settings, Setup, Snapshots};
use quorate_raft::types::{LogIndex, Term};
use rand_core::Rng as _;

use crate::host::{GroupRecovery, Host, OWN_TOKENS};
use crate::turn::Turn;
use gc::GarbageCollector;
use known::Saved;
use pending::PendingRequest;
use report::Reporter;
use server::Phase;
use state::Replicated;
pub use state::{CONTROL_GROUP, ControlPlane};

/// How long the answer to a change waits for the reachable nodes to serve it.
pub const SERVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a list of keyspaces waits for the leader.
pub const LIST_TIMEOUT: Duration = Duration::from_millis(250);

/// The control role's timer for pending requests.
const PROPOSALS_TIMER: u64 = crate::host::OWN_TIMERS;
/// The id of this role's own reads, whose result is ignored.
const PUSH: u64 = 0;

/// The control role of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Control {
    surroundings: Surroundings,
    setup: Setup,
    phase: Phase,
    /// The latest state that this node knows to be committed.
    known: ControlPlane,
    /// What of it is saved, beside the log.
    saved: Saved,
    /// Requests that arrived before it was loaded.
    early: Vec<Event>,
    /// The last entry of the log when the server started: earlier registrations may be from an earlier boot.
    boot_index: Option<LogIndex>,
    /// The term in which this server, as leader, has proposed the bootstrap.
    bootstrapping: Option<Term>,
    /// The generation whose keyspaces each node has reported to serve.
    serving: BTreeMap<NodeId, u64>,
    pending: BTreeMap<u64, PendingRequest>,
    /// Starts at a random number, so that answers to requests of an earlier boot do not match, and no two
    /// changes have the same id.
    last_request: u64,
    /// Changes forwarded by other control roles, by node and attempt.
    proposals: Dedup<(NodeId, u64)>,
    /// The leader when pending requests were last checked, and whether this server could take changes.
    led: (Option<NodeId>, bool),
    timer: Option<Instant>,
    reporter: Reporter,
    gc: GarbageCollector,
}

impl Control {
    /// A server that recovers from its disk when it starts.
    pub fn new(surroundings: &Surroundings) -> Self {
        let topology = surroundings.placement.topology();
        let mut members = topology.ids();
        let setup = Setup {
            me: surroundings.me(),
            group: CONTROL_GROUP,
            initial: Configuration {
                voters: members.by_ref().take(MAX_VOTERS).collect(),
                learners: members.collect(),
                ..Configuration::default()
            },
            settings: Settings {
                timing: surroundings.raft,
                snapshots: Snapshots::OnDemand,
                snapshot_every: 1_000,
                retained_entries: 500,
                ..Settings::default()
            },
            bugs: surroundings.bugs,
        };
        Control {
            surroundings: surroundings.clone(),
            phase: Phase::Recovering(Box::new(GroupRecovery::new(CONTROL_GROUP))),
            setup,
            known: ControlPlane::default(),
            saved: Saved::default(),
            early: Vec::new(),
            boot_index: None,
            bootstrapping: None,
            serving: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_request: 0,
            proposals: Dedup::default(),
            led: (None, false),
            timer: None,
            reporter: Reporter::default(),
            gc: GarbageCollector::new(surroundings.bugs),
        }
    }

    /// The protocol's state, once recovered.
    pub fn raft(&self) -> Option<&Raft> {
        self.host().map(Host::raft)
    }

    /// What this node's server has applied, once it is running, and its last entry.
    pub fn applied(&self) -> Option<(LogIndex, &ControlPlane)> {
        self.host().map(|host| (host.applied(), &host.machine().plane))
    }

    /// Why this node's server has failed, if so.
    pub fn broken(&self) -> Option<&str> {
        match &self.phase {
            Phase::Broken(why) => Some(why),
            _ => None,
        }
    }

    fn host(&self) -> Option<&Host<Replicated>> {
        match &self.phase {
            Phase::Running(host) => Some(host),
            _ => None,
        }
    }

    /// The latest state that this node knows to be committed.
    pub fn known(&self) -> &ControlPlane {
        &self.known
    }

    /// The number of pending requests.
    pub fn in_progress(&self) -> usize {
        self.pending.len()
    }

    fn me(&self) -> NodeId {
        self.surroundings.me()
    }

    fn alive(&self, node: NodeId) -> bool {
        self.surroundings.alive.contains(&node)
    }

    fn configured(&self) -> &Topology {
        self.surroundings.placement.topology()
    }

    fn leader(&self) -> Option<NodeId> {
        self.raft()?.leader()
    }

    /// Whether this server leads a bootstrapped cluster: it takes changes.
    fn takes_changes(&self) -> bool {
        let leads = self.raft().is_some_and(|raft| raft.is_leader());
        leads && self.known.generation() > 0
    }

    /// The latest known addresses of the members, in the current generation.
    ///
    /// A node is started with the members' current addresses. So the log's addresses count only for members
    /// that have registered since.
    pub fn topology(&self) -> Topology {
        let Some(mut topology) = self.known.topology() else {
            return self.configured().clone();
        };
        for member in &mut topology.members {
            let newer = self.known.touched(member.id) > self.boot_index && self.boot_index.is_some();
            if let Some(configured) = self.configured().member(member.id)
                && !newer
            {
                member.peer_address.clone_from(&configured.peer_address);
                member.client_address.clone_from(&configured.client_address);
                member.http_address.clone_from(&configured.http_address);
            }
        }
        topology
    }

    // ---- events of the server ----

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.last_request = attempts::first_operation(turn.rng.next_u64());
        Self::read_known(turn);
        if let Phase::Recovering(recovery) = &self.phase {
            recovery.start(turn);
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        if self.configured().member(node).is_none() {
            return;
        }
        match up {
            true => self.surroundings.alive.insert(node),
            false => self.surroundings.alive.remove(&node),
        };
        self.drive(turn, |host, turn| {
            host.handle(Event::Peer { node, up }, turn);
        });
        self.peer_changed(node, up, turn);
    }

    /// In a new cluster the lowest voter campaigns as soon as it sees a majority; so does a single voter.
    fn campaign_early(&mut self, turn: &mut Turn<'_>) {
        let Some(raft) = self.raft() else { return };
        let voters = &raft.configuration().voters;
        let new = raft.term() == Term(0) && raft.log().last().index == LogIndex(0);
        let alone = voters.len() == 1 && raft.leader().is_none();
        let seen = voters.iter().filter(|voter| self.alive(**voter)).count();
        let first = voters.first() == Some(&self.me());
        let campaigning = self.host().is_some_and(Host::is_campaigning);
        let idle = raft.leader().is_none() && !campaigning;
        if first && (new && idle && seen > voters.len() / 2 || alone && idle) {
            self.drive(turn, |host, turn| host.campaign(turn));
        }
    }

    // ---- the agreed state ----

    /// Adopts what the server has applied, if it is newer.
    fn follow_state(&mut self, turn: &mut Turn<'_>) {
        let Some((_, applied)) = self.applied() else {
            return;
        };
        if applied.generation() <= self.known.generation() {
            return;
        }
        let applied = applied.clone();
        let before = std::mem::replace(&mut self.known, applied);
        self.reporter.changed(&before, &self.known, turn.effects);
        self.save(turn);
    }

    /// The first leader bootstraps the cluster; each server registers its addresses.
    fn maintain(&mut self, turn: &mut Turn<'_>) {
        let last = self.raft().map(|raft| raft.log().last().index);
        self.boot_index = self.boot_index.or(last);
        let Some(raft) = self.raft() else { return };
        let term = raft.term();
        let own_term_committed = raft.log().term_at(raft.log().commit()) == Some(term);
        let nothing_before = raft.log().last().index <= LogIndex(1);
        if self.known.generation() == 0
            && raft.is_leader()
            && self.bootstrapping != Some(term)
            && (own_term_committed || nothing_before)
        {
            self.bootstrapping = Some(term);
            let topology = self.configured().clone();
            self.propose_own(Command::Bootstrap(topology), turn);
        }
        let me = self.me();
        if let (Some(registered), Some(configured)) = (self.known.member(me), self.configured().member(me))
            && self.leader().is_some()
            && !registered.has_addresses_of(configured)
            && !self.is_registering()
        {
            self.propose_own(Command::Register(configured.clone()), turn);
        }
    }

    fn send(&self, to: Address, request: u64, deadline: Instant, message: Message, turn: &mut Turn<'_>) {
        turn.effects.push(Effect::Send {
            to,
            header: Header {
                generation: self.known.generation(),
                request,
                deadline,
                trace: None,
            },
            message,
        });
    }

    fn peer_role(node: NodeId) -> Address {
        Address {
            node,
            role: RoleId::Control,
        }
    }

    // ---- events ----

    fn message(&mut self, from: Address, header: Header, message: Message, turn: &mut Turn<'_>) {
        match message {
            Message::Propose(change) => self.propose_forwarded(from, header, change, turn),
            Message::Forwarded(result) => self.forwarded(header.request, result, turn),
            Message::Redirect { .. } => self.redirected(header.request, turn),
            Message::Defined => self.serves(from.node, header.request, turn),
            _ => {}
        }
    }

    fn take(&mut self, event: Event, turn: &mut Turn<'_>) {
        if let Event::Start = event {
            return self.start(turn);
        }
        if let Event::Peer { node, up } = event {
            return self.peer(node, up, turn);
        }
        self.handle_gc(&event, turn);
        self.handle_known(&event, turn);
        let event = match event {
            Event::Read { token, result } if token < OWN_TOKENS => {
                return match self.phase {
                    Phase::Recovering(_) => self.recover(token, result, turn),
                    _ => self.drive(turn, |host, turn| {
                        host.handle(Event::Read { token, result }, turn);
                    }),
                };
            }
            event @ (Event::Request { .. } | Event::Local { .. }) => event,
            event => {
                let mut rest = Some(event);
                self.drive(turn, |host, turn| {
                    rest = rest.take().and_then(|event| host.handle(event, turn));
                });
                let Some(event) = rest else { return };
                event
            }
        };
        match event {
            Event::Timer { id: PROPOSALS_TIMER } => self.timer = None,
            event @ Event::Request { .. } if !self.saved.is_loaded() => self.early.push(event),
            Event::Request {
                client,
                header,
                request,
            } => self.request(client, header, request, turn),
            Event::Message {
                from,
                header,
                message,
            } => self.message(from, header, message, turn),
            _ => {}
        }
    }
}

impl Role for Control {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        let raft = |event: &Event| {
            matches!(
                event,
                Event::Message {
                    message: Message::Raft { .. },
                    ..
                }
            )
        };
        let from_peer = raft(&event);
        let mut turn = Turn { now, rng, effects };
        self.take(event, &mut turn);
        self.campaign_early(&mut turn);
        self.follow_state(&mut turn);
        self.maintain(&mut turn);
        self.advance_all(&mut turn);
        // A proposal may be applied already, in a cluster of one.
        self.follow_state(&mut turn);
        let claim = self.claim(now.instant);
        self.reporter.report(claim, from_peer, turn.effects);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transcripts;
