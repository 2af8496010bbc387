//! A shard of a consensus keyspace: a Raft group whose state is in the store.
//!
//! # The idea
//! A keyspace in consensus mode is split into shards by its keys' tokens; each is a Raft group of its own,
//! whose members the ring has chosen. A [`Shard`] is one member's server of one group. It applies what
//! [`Raft`](quorate_raft::Raft) has committed to rows of the store. The path of a client's request:
//!
//! ```text
//!  request ─▶ leader's server ── log entry ─▶ disks of a majority ─▶ committed
//!                                                                       │ in order, here durable too
//!  answer ◀── outcome ◀── applied by Store, inside its client's session ◀┘
//!                             └──▶ rows and marker, in one Effect::ApplyRows
//! ```
//!
//! Servers that do not lead pass requests to the [`forwarder`], which every node has for every consensus
//! keyspace: it finds the leader, on any node, and retries across leader changes.
//!
//! # Rows
//! The [host](crate::host) applies the log to the rows, as for the control plane. The [`store`] defines the
//! writes of a command. Conditions need the version of a row before the command is applied. Versions are read
//! beforehand, for all queued commands together. Nothing else waits for a read of the disk.
//!
//! # Reads
//! A linearizable read waits for a read index (see [`quorate_raft`]) and then reads rows; a stale one reads
//! them at once, and reports their maximum age: everything acknowledged longer ago than that is in the
//! answer. The age is based on a quorum's answers and what has been applied here since (`staleness.rs` of
//! `quorate-raft`), not on the leader's last message. Keys that are read together are read as of one moment:
//! no entries are applied in between ([`reads`]).
//!
//! # Exactly once
//! A command in a session is executed once, however often it is sent, until the session expires by logged
//! time or drops the answer: then the result is
//! [`SessionExpired`](quorate_core::error::Error::SessionExpired), never a second execution. Sessions are
//! rows like any others, so they are in snapshots and survive restarts.

pub mod forwarder;
mod kind;
mod ownership;
mod pending;
mod reads;
mod requests;
mod row_read;
mod server;
mod store;

use std::time::Duration;

use quorate_core::bugs::Bug;
use quorate_core::contract::{Rng, Role};
use quorate_core::dedup::Dedup;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::GroupClaim;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::message::Message;
use quorate_protocol::role::{Effect, Event, Surroundings};
use quorate_raft::Raft;
use quorate_raft::configuration::Configuration;
use quorate_raft::settings::{Settings, Setup, Snapshots};
use quorate_raft::types::{GroupId, LogIndex};

use crate::host::{GroupRecovery, OWN_TIMERS, Recovered};
use crate::report;
use crate::turn::Turn;
use ownership::misdirected;
use server::Server;
use store::Store;

/// The timer of a new group's preferred member.
const EARLY_TIMER: u64 = OWN_TIMERS;
/// How long a forwarded command is remembered beyond its deadline: longer than a message stays in any
/// network, so that a duplicate is never taken for another attempt.
const FORWARD_MEMORY: Duration = Duration::from_secs(10);
/// The retry interval of such an election.
const EARLY_PAUSE: Duration = Duration::from_millis(10);

/// One member's server of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    setup: Setup,
    name: String,
    /// The preferred first leader, chosen by the ring.
    first: Option<NodeId>,
    surroundings: Surroundings,
    keyspace: Keyspace,
    phase: Phase,
    /// In a new group: the earliest next election.
    next_campaign: Instant,
    /// Commands sent by forwarders, by node and attempt. Of a duplicated message, one copy could be rejected
    /// and the other executed.
    forwarded: Dedup<(NodeId, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Reading its disk.
    Recovering(Box<GroupRecovery<Store>>),
    /// Running.
    Running(Box<Server>),
    /// The disk lacks what it should have: this server may have forgotten promises, and must not take part.
    Broken(String),
    /// The keyspace was dropped.
    Dropped,
}

impl Shard {
    /// This node's server of a group of the keyspace; `None` if the node is not a member.
    pub fn new(keyspace: &Keyspace, id: GroupId, surroundings: &Surroundings) -> Option<Self> {
        let (number, group) = keyspace.group(id)?;
        let me = surroundings.me();
        if !group.members.contains(&me) {
            return None;
        }
        let every = u64::from(keyspace.settings.snapshot_every);
        let defaults = Settings::default();
        Some(Shard {
            setup: Setup {
                me,
                group: id,
                initial: Configuration::of_voters(group.members.iter().copied()),
                settings: Settings {
                    timing: surroundings.raft,
                    snapshots: Snapshots::OnDemand,
                    track_staleness: true,
                    snapshot_every: every,
                    retained_entries: defaults.retained_entries.min(every.div_ceil(2)),
                    ..defaults
                },
                bugs: surroundings.bugs,
            },
            name: match keyspace.groups.len() {
                1 => keyspace.settings.name.clone(),
                _ => format!("{}/{number}", keyspace.settings.name),
            },
            first: group.members.first().copied(),
            surroundings: surroundings.clone(),
            keyspace: keyspace.clone(),
            phase: Phase::Recovering(Box::new(GroupRecovery::new(id))),
            next_campaign: Instant(0),
            forwarded: Dedup::default(),
        })
    }

    /// The protocol's state, once recovered.
    pub fn raft(&self) -> Option<&Raft> {
        match &self.phase {
            Phase::Running(server) => Some(server.raft()),
            _ => None,
        }
    }

    /// Why the server has failed, if so.
    pub fn broken(&self) -> Option<&str> {
        match &self.phase {
            Phase::Broken(why) => Some(why),
            _ => None,
        }
    }

    /// The number of pending requests.
    pub fn in_progress(&self) -> usize {
        match &self.phase {
            Phase::Running(server) => server.in_progress(),
            _ => 0,
        }
    }

    /// The last entry applied to its rows, once it is running.
    pub fn applied(&self) -> Option<LogIndex> {
        match &self.phase {
            Phase::Running(server) => Some(server.applied()),
            _ => None,
        }
    }

    /// This server's claim about itself and its group.
    pub fn claim(&self, now: Instant) -> GroupClaim {
        let elections = match &self.phase {
            Phase::Running(server) => server.host.elections(),
            _ => 0,
        };
        let name = (self.setup.group, self.name.as_str());
        let claim = report::claim(name, self.setup.me, self.raft(), self.broken(), elections, now);
        GroupClaim {
            // Applied to the rows, not only received.
            applied: self.applied().map_or(claim.applied, |applied| applied.0),
            ..claim
        }
    }

    /// In a new group the preferred member does not wait for an election timeout; nor does a single member.
    fn campaign_early(&mut self, turn: &mut Turn<'_>) {
        let Phase::Running(server) = &mut self.phase else {
            return;
        };
        let voters = &server.raft().configuration().voters;
        let alone = voters.len() == 1 && voters.contains(&self.setup.me) && server.host.elections() == 0;
        let wanted = alone || self.first == Some(self.setup.me) && server.host.is_new();
        if !wanted || turn.now.instant < self.next_campaign {
            return;
        }
        let alive = voters
            .iter()
            .filter(|voter| self.surroundings.alive.contains(voter));
        if alive.count() > voters.len() / 2 {
            self.next_campaign = turn.now.instant + EARLY_PAUSE;
            turn.push(Effect::SetTimer {
                id: EARLY_TIMER,
                at: self.next_campaign,
            });
            server.campaign(turn);
        }
    }

    /// Whether this is a duplicate of a command.
    fn is_repeated(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::Message {
                from,
                header,
                message: Message::Forward(request),
            } if !request.is_read() && !self.surroundings.bugs.has(Bug::DuplicatesAccepted) => {
                let until = header.deadline.max(now) + FORWARD_MEMORY;
                !self.forwarded.is_new((from.node, header.request), until, now)
            }
            _ => false,
        }
    }

    /// Rejects a request that belongs to another group. Returns any other event.
    fn reject_misdirected(&self, event: Event, turn: &mut Turn<'_>) -> Option<Event> {
        let request = match &event {
            Event::Request { request, .. }
            | Event::Message {
                message: Message::Forward(request),
                ..
            } => request,
            _ => return Some(event),
        };
        let hash = self.surroundings.placement.topology().ring.hash;
        let Some(error) = misdirected(&self.keyspace, hash, self.setup.group, request) else {
            return Some(event);
        };
        reject(event, error, turn);
        None
    }

    /// Rejects all requests after the keyspace was dropped.
    fn reject_dropped(&self, event: Event, turn: &mut Turn<'_>) {
        let pending = match &event {
            Event::Request { .. } => true,
            Event::Message { message, .. } => matches!(message, Message::Forward(_)),
            _ => false,
        };
        if pending {
            reject(event, self.keyspace.dropped_error(), turn);
        }
    }

    fn publish_status(&self, turn: &mut Turn<'_>) {
        turn.push(Effect::Group(Box::new(self.claim(turn.now.instant))));
    }

    fn start_with(&mut self, result: Result<Option<Recovered<Store>>, String>, turn: &mut Turn<'_>) {
        let started = match result {
            Ok(None) => return,
            Ok(Some(found)) => {
                let alive = &self.surroundings.alive;
                let home = server::Identity {
                    keyspace: self.keyspace.id,
                    voters: self.setup.initial.voters.len(),
                };
                Server::start(self.setup.clone(), home, found, alive, turn)
            }
            Err(why) => Err(why),
        };
        match started {
            Ok(server) => self.phase = Phase::Running(Box::new(server)),
            Err(why) => self.fail(why, turn),
        }
        self.publish_status(turn);
    }

    /// The server stops, or does not start.
    fn fail(&mut self, why: String, turn: &mut Turn<'_>) {
        turn.push(Effect::Emit(
            quorate_protocol::telemetry::TimelineEvent::GroupBroken {
                group: self.setup.group,
                reason: why.clone(),
            },
        ));
        self.phase = Phase::Broken(why);
        self.publish_status(turn);
    }
}

impl Role for Shard {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        let mut turn = Turn { now, rng, effects };
        if self.is_repeated(&event, now.instant) {
            return;
        }
        let Some(event) = self.reject_misdirected(event, &mut turn) else {
            return;
        };
        if let Event::Peer { node, up } = event {
            match up {
                true => self.surroundings.alive.insert(node),
                false => self.surroundings.alive.remove(&node),
            };
        }
        match (&mut self.phase, event) {
            (phase, Event::Dropped) => {
                if let Phase::Running(server) = phase {
                    server.drop_all(&self.keyspace, &mut turn);
                }
                self.phase = Phase::Dropped;
            }
            (Phase::Dropped, event) => self.reject_dropped(event, &mut turn),
            (Phase::Running(server), event) => {
                let news = server.handle(event, &mut turn);
                if let Some(why) = server.host.take_broken() {
                    server.reject_all(&why, &mut turn);
                    self.fail(why, &mut turn);
                }
                if news {
                    self.publish_status(&mut turn);
                }
            }
            (Phase::Recovering(recovery), Event::Start) => recovery.start(&mut turn),
            (Phase::Recovering(recovery), Event::Read { token, result }) => {
                let found = recovery.read(token, result, &mut turn);
                self.start_with(found, &mut turn);
            }
            // A server that is not running redirects requests.
            (
                _,
                Event::Request {
                    client,
                    header,
                    request,
                },
            ) => requests::relay(self.keyspace.id, client, header, request, &mut turn),
            (
                _,
                Event::Message {
                    from,
                    header,
                    message: Message::Forward(_),
                },
            ) => requests::redirect(from, header, None, &mut turn),
            _ => {}
        }
        self.campaign_early(&mut turn);
    }
}

/// Answers a request of a client or a forwarder with an error.
fn reject(event: Event, error: Error, turn: &mut Turn<'_>) {
    match event {
        Event::Request { client, .. } => turn.push(Effect::Reply {
            client,
            response: Err(error),
        }),
        Event::Message { from, header, .. } => turn.push(Effect::Send {
            to: from,
            header,
            message: Message::Forwarded(Err(error)),
        }),
        _ => {}
    }
}

/// The error for a group that the keyspace does not have.
pub(crate) fn no_such_group(keyspace: &Keyspace, group: GroupId) -> Error {
    let name = &keyspace.settings.name;
    let groups: Vec<String> = keyspace.groups.iter().map(|group| group.id.to_string()).collect();
    Error::NotFound(format!(
        "keyspace {name:?} has no group {group} (it has {}): look the keyspace up again",
        groups.join(", ")
    ))
}
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transcripts;
