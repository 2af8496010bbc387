//! The coordinator role: the client requests of one keyspace on this node.
//!
//! One role holds all of them; each request is an *operation* in its table: a small state machine (a write, a read, a
//! scan, or a forwarded put), not an actor. Losing the table at any time loses no data: it contains only pending
//! requests.
//!
//! A write is coordinated by a replica of its key, since an event needs a dot; a coordinator on another node forwards
//! it to the first reachable replica. Reads and scans are coordinated by any node.
//!
//! Invariants:
//! * Each request of a client is answered exactly once, at its deadline at the latest.
//! * Operation ids never repeat, even after a restart, so that a late response to an operation of an earlier boot is
//!   ignored.

mod dropped;
mod repair;
mod requests;
mod responses;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::contract::{Rng, Role};
use quorate_core::dedup::Dedup;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::placement::Preference;
use quorate_protocol::role::{Address, Effect, Event, RoleId, Surroundings};
use quorate_protocol::telemetry::TraceContext;
use rand_core::Rng as _;

use crate::many::Many;
use crate::operation::{KeyResult, Kind, Origin, PendingRequest, RequestDetails};
use crate::outgoing::Outgoing;
use crate::progress::Progress;
use repair::Repairs;

/// How long a read waits for responses before it contacts the remaining replicas (a hedged request).
pub const HEDGE_AFTER: Duration = Duration::from_millis(50);
/// How long a scan waits for optional nodes.
pub const SCAN_SOFT_DEADLINE: Duration = Duration::from_millis(500);
/// How long after its response a read waits for the remaining replicas, to repair them.
pub const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// One in this many reads at ONE contacts every replica, so that keys that are only read at ONE are repaired too.
pub const REPAIR_ONE_IN: u32 = 10;
/// The maximum number of keys in a page of a scan.
pub const MAX_PAGE: u32 = 1_000;
/// The maximum number of bytes kept for answered reads that wait for the remaining replicas.
pub const MAX_LINGERING_BYTES: usize = 16 << 20;
const TIMER: u64 = 0;

/// The coordinator role of one keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    surroundings: Surroundings,
    keyspace: Keyspace,
    preference: Preference,
    /// Boxed, since a map moves its values.
    pending: BTreeMap<u64, Box<PendingRequest>>,
    /// Requests for many keys; each key has an operation of its own.
    many: BTreeMap<u64, Many>,
    /// Messages to send at the end of this turn.
    outgoing: Outgoing,
    /// [`Effect::EndTurn`] was requested.
    end_turn_requested: bool,
    /// The deadline of each operation, and its soft deadline if it has one.
    wakeups: BTreeSet<(Instant, u64)>,
    timer: Option<Instant>,
    last_operation: u64,
    /// The sum of the bytes that answered operations keep in memory.
    lingering_bytes: usize,
    /// Puts that other nodes have forwarded, by node and operation id there: a duplicate message is not a second put.
    forwarded: Dedup<(NodeId, u64)>,
    repairs: Repairs,
    /// Its keyspace was dropped.
    dropped: bool,
}

impl Coordinator {
    /// A coordinator without requests.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace has more replicas than the cluster has nodes.
    pub fn new(keyspace: &Keyspace, surroundings: &Surroundings) -> Result<Self, Error> {
        Ok(Coordinator {
            surroundings: surroundings.clone(),
            keyspace: keyspace.clone(),
            preference: surroundings.placement.preference(keyspace.settings.replicas)?,
            pending: BTreeMap::new(),
            many: BTreeMap::new(),
            outgoing: Outgoing::default(),
            end_turn_requested: false,
            wakeups: BTreeSet::new(),
            timer: None,
            last_operation: 0,
            lingering_bytes: 0,
            forwarded: Dedup::default(),
            repairs: Repairs::default(),
            dropped: false,
        })
    }

    /// The number of operations in progress.
    pub fn in_progress(&self) -> usize {
        self.pending.len()
    }

    fn me(&self) -> NodeId {
        self.surroundings.me()
    }

    fn alive(&self, node: NodeId) -> bool {
        self.surroundings.alive.contains(&node)
    }

    // ---- operations ----

    /// Assigns operation ids from a random number on, so that no two boots use the same ids.
    fn start(&mut self, rng: &mut Rng) {
        self.last_operation = rng.next_u64() >> 8;
    }

    /// Adds an operation to the table, with a soft deadline if that is before its deadline.
    fn begin(
        &mut self,
        details: RequestDetails,
        kind: Kind,
        soft_deadline: Option<Duration>,
        now: Now,
    ) -> u64 {
        self.last_operation += 1;
        let id = self.last_operation;
        let soft_deadline = soft_deadline
            .map(|wait| now.instant + wait)
            .filter(|at| *at < details.deadline);
        self.wakeups.insert((details.deadline, id));
        self.wakeups.extend(soft_deadline.map(|at| (at, id)));
        let pending = PendingRequest {
            details,
            kind,
            soft_deadline,
            lingers: 0,
        };
        self.pending.insert(id, Box::new(pending));
        id
    }

    /// Removes an operation from the table.
    fn remove(&mut self, id: u64) -> Option<PendingRequest> {
        let pending = *self.pending.remove(&id)?;
        self.wakeups.remove(&(pending.details.deadline, id));
        if let Some(soft_deadline) = pending.soft_deadline {
            self.wakeups.remove(&(soft_deadline, id));
        }
        self.lingering_bytes -= pending.lingers;
        Some(pending)
    }

    // ---- sending ----

    fn replica(&self, node: NodeId) -> Address {
        let role = RoleId::Replica(self.keyspace.id);
        Address { node, role }
    }

    fn coordinator(&self, node: NodeId) -> Address {
        let role = RoleId::Coordinator(self.keyspace.id);
        Address { node, role }
    }

    /// Sends a message of an operation, at the end of the turn if it can be batched.
    fn send(&mut self, id: u64, to: Address, message: Message, effects: &mut Vec<Effect>) {
        if let Some(pending) = self.pending.get(&id) {
            let header = self.header(id, pending.details.deadline, pending.details.trace);
            self.outgoing.send(to, header, message, effects);
        }
    }

    /// Records the result of one key of a request for many, if there is one; the last one completes the request.
    fn finish_key(&mut self, answer: Option<KeyResult>, now: Now, effects: &mut Vec<Effect>) {
        let Some(KeyResult {
            request,
            place,
            result,
        }) = answer
        else {
            return;
        };
        let many = self
            .many
            .get_mut(&request)
            .expect("a request waits for all its keys");
        many.take(place, result);
        if many.is_complete() {
            let many = self.many.remove(&request).expect("it was found");
            self.finish_many(many, now, effects);
        }
    }

    fn finish_many(&mut self, many: Many, now: Now, effects: &mut Vec<Effect>) {
        let (mut details, answer) = many.finish();
        let name = &self.keyspace.settings.name;
        let none = details.respond(answer, self.me(), name, now, effects);
        assert!(none.is_none(), "requests for many keys do not nest");
    }

    fn header(&self, request: u64, deadline: Instant, trace: Option<TraceContext>) -> Header {
        Header {
            generation: self.preference.topology().generation,
            request,
            deadline,
            trace,
        }
    }

    /// Applies changed settings of the keyspace to all later requests.
    fn alter(&mut self, keyspaces: Vec<Keyspace>) {
        let id = self.keyspace.id;
        let altered = keyspaces.into_iter().find(|keyspace| keyspace.id == id);
        if let Some(keyspace) = altered {
            assert_eq!(
                keyspace.settings.replicas, self.keyspace.settings.replicas,
                "a keyspace with another number of replicas has other roles"
            );
            self.keyspace = keyspace;
        }
    }

    // ---- time and peers ----

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.timer = None;
        while let Some(&(at, id)) = self.wakeups.first() {
            if at > now.instant {
                break;
            }
            self.wakeups.pop_first();
            let Some(pending) = self.pending.get(&id) else {
                continue;
            };
            if pending.details.deadline > now.instant {
                self.advance(id, true, now, effects);
                continue;
            }
            let required = pending.details.required;
            let progress = match &pending.kind {
                _ if pending.details.is_answered() => Progress::Finished,
                Kind::Write(write) => Progress::Done(Err(write.timed_out(required))),
                Kind::Read(read) => Progress::Done(Err(read.timed_out(required))),
                Kind::Scan(scan) => Progress::Done(Err(scan.timed_out(&self.preference, required))),
                Kind::Forwarded { .. } => Progress::Done(Err(Error::OutcomeUnknown {
                    acked: 0,
                    required,
                    reason: None,
                })),
            };
            self.conclude(id, progress, now, effects);
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, now: Now, effects: &mut Vec<Effect>) {
        if self.preference.topology().member(node).is_none() {
            return;
        }
        match up {
            true => self.surroundings.alive.insert(node),
            false => self.surroundings.alive.remove(&node),
        };
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            match up {
                true => self.peer_up(id, node, effects),
                false => self.peer_down(id, node, now, effects),
            }
        }
    }

    /// A peer is reachable again: sends it the state of a write in progress that it missed.
    fn peer_up(&mut self, id: u64, node: NodeId, effects: &mut Vec<Effect>) {
        let Some(PendingRequest {
            kind: Kind::Write(write),
            ..
        }) = self.pending.get_mut(&id).map(|pending| &mut **pending)
        else {
            return;
        };
        if write.reachable_again(node)
            && let Some(state) = write.state().cloned()
        {
            let key = write.key.clone();
            self.send(id, self.replica(node), Message::Store { key, state }, effects);
        }
    }

    fn peer_down(&mut self, id: u64, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let required = pending.details.required;
        match &mut pending.kind {
            Kind::Write(write) => write.unreachable(node),
            Kind::Read(read) => read.failed(node, None),
            Kind::Scan(scan) => scan.failed(node, None),
            Kind::Forwarded { to } if *to == node => {
                let unknown = Error::OutcomeUnknown {
                    acked: 0,
                    required,
                    reason: Some(format!("{node}, which coordinates the write, is unreachable")),
                };
                return self.conclude(id, Progress::Done(Err(unknown)), now, effects);
            }
            Kind::Forwarded { .. } => return,
        }
        self.advance(id, false, now, effects);
    }

    /// One timer serves all operations: it is set to the first wakeup.
    fn set_timer(&mut self, effects: &mut Vec<Effect>) {
        let Some(&(first, _)) = self.wakeups.first() else {
            return;
        };
        if self.timer.is_none_or(|at| first < at) {
            self.timer = Some(first);
            effects.push(Effect::SetTimer { id: TIMER, at: first });
        }
    }
}

impl Role for Coordinator {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        if self.dropped {
            return self.reject_after_drop(event, now, effects);
        }
        match event {
            Event::Dropped => self.drop_all(now, effects),
            Event::Start => self.start(rng),
            Event::Request {
                client,
                header,
                request,
            } => {
                self.request(Origin::Client(client), header, request, now, rng, effects);
            }
            Event::Message {
                from,
                header,
                message: Message::Forward(request),
            } => self.forwarded(from, header, request, now, rng, effects),
            Event::Local {
                message: LocalMessage::Keyspaces(keyspaces),
                ..
            } => self.alter(keyspaces),
            Event::Local {
                header,
                message:
                    LocalMessage::Assigned {
                        dot,
                        timestamp,
                        state,
                    },
                ..
            } => self.assigned(header.request, (dot, timestamp, state), now, effects),
            Event::Message {
                from,
                header,
                message: Message::Parts(parts),
            } => {
                for part in parts {
                    let (header, message) = part.unpack(&header);
                    self.on_message(from, header.request, message, now, effects);
                }
            }
            Event::Message {
                from,
                header,
                message,
            } => self.on_message(from, header.request, message, now, effects),
            Event::Timer { .. } => self.wake(now, effects),
            Event::TurnEnded => {
                self.end_turn_requested = false;
                self.outgoing.flush(effects);
            }
            Event::Peer { node, up } => self.peer(node, up, now, effects),
            Event::Local {
                message: LocalMessage::Assign { .. },
                ..
            }
            | Event::Persisted { .. }
            | Event::PersistRefused { .. }
            | Event::Read { .. }
            | Event::Flushed { .. }
            | Event::Files { .. } => {}
        }
        if !self.outgoing.is_empty() && !std::mem::replace(&mut self.end_turn_requested, true) {
            effects.push(Effect::EndTurn);
        }
        self.set_timer(effects);
    }
}
