//! The coordinator role: the requests of one keyspace that came to this node.
//!
//! One role holds all of them; a request is a small state machine in its table (a write, a read, a scan, or one that was forwarded), not an actor of its own. It may be
//! forgotten at any time without harm to data: what it knows is only who is waiting for what.
//!
//! A write is coordinated by a replica of its key, since an event needs a dot; a coordinator on another node forwards
//! it to the first replica that it can reach. Reads and scans are coordinated wherever they arrive.
//!
//! Invariant: each request is answered exactly once, at its deadline at the latest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand_core::Rng as _;

use crate::api::{Request, Response};
use crate::error::Error;
use crate::ids::NodeId;
use crate::key::{Key, record_key, record_range};
use crate::keyspace::{Keyspace, ReadRepair};
use crate::level::Level;
use crate::message::{Header, Message};
use crate::placement::Preference;
use crate::quorum::exchange::{Exchange, Kind, Origin, Progress, operation_of};
use crate::quorum::read::Read;
use crate::quorum::scan::Scan;
use crate::quorum::write::Write;
use crate::role::{Address, Effect, Event, Rng, Role, RoleId, Surroundings};
use crate::telemetry::{Operation, TimelineEvent};
use crate::time::{Instant, Now};
use crate::versions::{VersionVector, WriteId};

/// How long a read waits for those it asked before it asks the others too.
pub const HEDGE_AFTER: Duration = Duration::from_millis(50);
/// How long a scan waits for a node that is not needed.
pub const SCAN_PATIENCE: Duration = Duration::from_millis(500);
/// How long after its answer a read waits for the rest, to repair them.
pub const REPAIR_PATIENCE: Duration = Duration::from_secs(2);
/// One in this many reads at ONE asks every replica, so that what only ONE reads is repaired too.
pub const REPAIR_ONE_IN: u32 = 10;
/// The most keys a page of a scan has.
pub const MAX_PAGE: u32 = 1_000;
const TIMER: u64 = 0;

/// The coordinator role of one keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    surroundings: Surroundings,
    keyspace: Keyspace,
    preference: Preference,
    exchanges: BTreeMap<u64, Exchange>,
    /// When to look at which exchange: its deadline, or a hedge before that.
    wakes: BTreeSet<(Instant, u64)>,
    timer: Option<Instant>,
    last_exchange: u64,
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
            exchanges: BTreeMap::new(),
            wakes: BTreeSet::new(),
            timer: None,
            last_exchange: 0,
        })
    }

    /// How many requests are in progress.
    pub fn in_progress(&self) -> usize {
        self.exchanges.len()
    }

    fn me(&self) -> NodeId {
        self.surroundings.me()
    }

    fn alive(&self, node: NodeId) -> bool {
        self.surroundings.alive.contains(&node)
    }

    // ---- requests ----

    fn request(
        &mut self,
        origin: Origin,
        header: Header,
        request: Request,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        let Some(operation) = operation_of(&request) else {
            let error = Error::invalid(format!("a coordinator does not answer {request:?}"));
            return refuse(origin, error, effects);
        };
        let settings = &self.keyspace.settings;
        let level = match &request {
            Request::Put { level, .. } => level.unwrap_or(settings.write_level),
            Request::Get { level, .. } | Request::Scan { level, .. } => level.unwrap_or(settings.read_level),
            _ => settings.read_level,
        };
        let required = match level.required(settings.replicas) {
            Ok(required) => required,
            Err(error) => return refuse(origin, error, effects),
        };
        let ask = Ask {
            origin,
            header,
            operation,
            level,
            required,
        };
        match request {
            Request::Put {
                key,
                value,
                context,
                write_id,
                ..
            } => {
                self.put(
                    ask,
                    key,
                    Change {
                        value,
                        context,
                        write_id,
                    },
                    now,
                    rng,
                    effects,
                );
            }
            Request::Get { key, .. } => self.get(ask, key, now, rng, effects),
            Request::Scan {
                start,
                end,
                after_start,
                limit,
                ..
            } => {
                let range = self.range(start, end, after_start);
                self.scan(ask, range, limit.clamp(1, MAX_PAGE), now, rng, effects);
            }
            _ => unreachable!("operation_of admits no other"),
        }
    }

    /// Refuses what cannot succeed, before anything happens.
    fn unavailable(&mut self, ask: Ask, alive: u8, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        let error = Error::Unavailable {
            required: ask.required,
            alive,
        };
        let mut exchange = ask.exchange(now, rng, Kind::Forwarded { to: self.me() });
        exchange.answer(Err(error), self.me(), &self.keyspace.settings.name, now, effects);
    }

    fn put(
        &mut self,
        ask: Ask,
        key: Key,
        change: Change,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        let replicas = self.preference.of(&key).to_vec();
        let alive = replicas.iter().filter(|node| self.alive(**node)).count() as u8;
        if alive < ask.required {
            return self.unavailable(ask, alive, now, rng, effects);
        }
        if !replicas.contains(&self.me()) {
            return self.forward(ask, key, change, &replicas, now, rng, effects);
        }
        let write = Write::new(key.clone(), self.me(), replicas, &self.surroundings.alive);
        let id = self.begin(ask.exchange(now, rng, Kind::Write(write)));
        let Change {
            value,
            context,
            write_id,
        } = change;
        self.send(
            id,
            self.me(),
            true,
            Message::Assign {
                key,
                value,
                context,
                write_id,
            },
            effects,
        );
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        ask: Ask,
        key: Key,
        change: Change,
        replicas: &[NodeId],
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(ask.origin, Origin::Peer(..)) {
            let generation = self.preference.topology().generation;
            let error = Error::Refused(format!(
                "{} holds no replica of {key} in generation {generation}: refresh the topology",
                self.me()
            ));
            return refuse(ask.origin, error, effects);
        }
        let to = *replicas
            .iter()
            .find(|node| self.alive(**node))
            .expect("at least one is alive");
        let request = Request::Put {
            keyspace: self.keyspace.id,
            key,
            value: change.value,
            context: change.context,
            level: Some(ask.level),
            write_id: change.write_id,
        };
        let id = self.begin(ask.exchange(now, rng, Kind::Forwarded { to }));
        self.send(id, to, false, Message::Forward(request), effects);
    }

    fn get(&mut self, ask: Ask, key: Key, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        let me = self.me();
        let replicas = self.preference.of(&key).iter().copied();
        let mut reachable: Vec<NodeId> = replicas.filter(|node| self.alive(*node)).collect();
        if reachable.len() < usize::from(ask.required) {
            return self.unavailable(ask, reachable.len() as u8, now, rng, effects);
        }
        reachable.sort_by_key(|node| *node != me);
        let repair = self.keyspace.settings.read_repair == ReadRepair::Async;
        let all = repair && (ask.required > 1 || rng.next_u32().is_multiple_of(REPAIR_ONE_IN));
        let ask_now = if all {
            reachable.len()
        } else {
            usize::from(ask.required)
        };
        let read = Read::new(key.clone(), me, reachable, ask_now, repair);
        let asked: Vec<NodeId> = read.asked().collect();
        let deadline = ask.header.deadline;
        let id = self.begin(ask.exchange(now, rng, Kind::Read(read)));
        let hedge = now.instant + HEDGE_AFTER;
        if hedge < deadline {
            self.wakes.insert((hedge, id));
        }
        for node in asked {
            self.send(id, node, true, Message::Fetch { key: key.clone() }, effects);
        }
    }

    fn range(&self, start: Option<Key>, end: Option<Key>, after_start: bool) -> std::ops::Range<Bytes> {
        let mut range = record_range(self.keyspace.id, start.as_ref(), end.as_ref());
        if let (true, Some(start)) = (after_start, &start) {
            // Encoded keys delimit themselves: nothing lies between a key and the key with a zero byte behind it.
            range.start = [record_key(self.keyspace.id, start).as_ref(), &[0]]
                .concat()
                .into();
        }
        range
    }

    fn scan(
        &mut self,
        ask: Ask,
        range: std::ops::Range<Bytes>,
        limit: u32,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(fewest) = Scan::covers(&self.surroundings.alive, &self.preference, ask.required) {
            return self.unavailable(ask, fewest, now, rng, effects);
        }
        let scan = Scan::new(self.me(), limit as usize, self.surroundings.alive.clone());
        let asked: Vec<NodeId> = scan.asked().collect();
        let deadline = ask.header.deadline;
        let id = self.begin(ask.exchange(now, rng, Kind::Scan(scan)));
        let impatient = now.instant + SCAN_PATIENCE;
        if impatient < deadline {
            self.wakes.insert((impatient, id));
        }
        for node in asked {
            let message = Message::FetchRange {
                start: range.start.clone(),
                end: range.end.clone(),
                limit,
            };
            self.send(id, node, true, message, effects);
        }
    }

    fn begin(&mut self, exchange: Exchange) -> u64 {
        self.last_exchange += 1;
        self.wakes.insert((exchange.deadline, self.last_exchange));
        self.exchanges.insert(self.last_exchange, exchange);
        self.last_exchange
    }

    /// Sends a message about an exchange to a node's replica, or to its coordinator.
    fn send(&self, id: u64, node: NodeId, to_replica: bool, message: Message, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        let role = match to_replica {
            true => RoleId::Replica(self.keyspace.id),
            false => RoleId::Coordinator(self.keyspace.id),
        };
        let header = Header {
            generation: self.preference.topology().generation,
            request: id,
            deadline: exchange.deadline,
            trace: exchange.trace,
        };
        effects.push(Effect::Send {
            to: Address { node, role },
            header,
            message,
        });
    }

    // ---- answers ----

    fn message(
        &mut self,
        from: Address,
        header: Header,
        message: Message,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if let Message::Forward(request) = message {
            return self.request(Origin::Peer(from, header), header, request, now, rng, effects);
        }
        let id = header.request;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        match (&mut exchange.kind, message) {
            (
                Kind::Write(write),
                Message::Assigned {
                    dot,
                    timestamp,
                    state,
                },
            ) => {
                let (key, targets) = (write.key.clone(), write.assigned(dot, timestamp, state.clone()));
                for node in targets {
                    let message = Message::Store {
                        key: key.clone(),
                        state: state.clone(),
                    };
                    self.send(id, node, true, message, effects);
                }
            }
            (Kind::Write(write), Message::Stored) => write.stored(from.node),
            (Kind::Write(write), Message::Failed(error)) if write.state().is_none() => {
                // The own replica refused before there was an event: nothing has happened anywhere.
                return self.advance_to(id, Progress::Done(Err(error)), now, effects);
            }
            (Kind::Write(write), Message::Failed(_)) => write.lost(from.node),
            (Kind::Read(read), Message::Fetched { state }) => read.fetched(from.node, state),
            (Kind::Read(read), Message::Failed(error)) => read.lost(from.node, Some(error)),
            (Kind::Scan(scan), Message::FetchedRange { rows, more }) => scan.fetched(from.node, rows, more),
            (Kind::Scan(scan), Message::Failed(error)) => scan.lost(from.node, Some(error)),
            (Kind::Forwarded { .. }, Message::Forwarded(result)) => {
                return self.advance_to(id, Progress::Done(result), now, effects);
            }
            _ => return,
        }
        self.advance(id, false, now, effects);
    }

    /// Looks at what an exchange has, and does what follows.
    fn advance(&mut self, id: u64, impatient: bool, now: Now, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let (required, level) = (exchange.required, exchange.level);
        let mut ask = Vec::new();
        let progress = match &mut exchange.kind {
            Kind::Write(write) if self.surroundings.bugs.write_quorum_by_liveness => {
                write.progress_by_liveness(required, level)
            }
            Kind::Write(write) => write.progress(required, level),
            Kind::Read(read) => {
                if impatient || read.short(required) {
                    ask = read.ask_more();
                }
                read.progress(required, level)
            }
            Kind::Scan(scan) => scan.progress(&self.preference, required, level, impatient),
            Kind::Forwarded { .. } => Progress::Waiting,
        };
        if let Kind::Read(read) = &exchange.kind {
            let key = read.key.clone();
            for node in ask {
                self.send(id, node, true, Message::Fetch { key: key.clone() }, effects);
            }
        }
        self.advance_to(id, progress, now, effects);
    }

    fn advance_to(&mut self, id: u64, progress: Progress, now: Now, effects: &mut Vec<Effect>) {
        let me = self.me();
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let name = &self.keyspace.settings.name;
        match progress {
            Progress::Waiting => {}
            Progress::Answered(result) => {
                exchange.answer(result, me, name, now, effects);
                let until = exchange.deadline.min(now.instant + REPAIR_PATIENCE);
                self.wakes.remove(&(exchange.deadline, id));
                exchange.deadline = until;
                self.wakes.insert((until, id));
            }
            Progress::Done(result) => {
                exchange.answer(result, me, name, now, effects);
                self.end(id, now, effects);
            }
            Progress::Over => self.end(id, now, effects),
        }
    }

    fn end(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some(exchange) = self.exchanges.remove(&id) else {
            return;
        };
        self.wakes.remove(&(exchange.deadline, id));
        let Kind::Read(read) = exchange.kind else { return };
        let Some((state, stale)) = read.repairs() else {
            return;
        };
        let header = Header {
            generation: self.preference.topology().generation,
            request: id,
            deadline: now.instant + REPAIR_PATIENCE,
            trace: exchange.trace,
        };
        for node in &stale {
            let to = Address {
                node: *node,
                role: RoleId::Replica(self.keyspace.id),
            };
            let message = Message::Store {
                key: read.key.clone(),
                state: state.clone(),
            };
            effects.push(Effect::Send { to, header, message });
        }
        effects.push(Effect::Emit(TimelineEvent::ReadRepaired {
            keyspace: self.keyspace.settings.name.clone(),
            replicas: stale,
        }));
    }

    // ---- time and peers ----

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.timer = None;
        while let Some(&(at, id)) = self.wakes.first() {
            if at > now.instant {
                break;
            }
            self.wakes.pop_first();
            let Some(exchange) = self.exchanges.get(&id) else {
                continue;
            };
            if exchange.deadline > now.instant {
                self.advance(id, true, now, effects);
                continue;
            }
            let required = exchange.required;
            let progress = match &exchange.kind {
                _ if exchange.origin.is_none() => Progress::Over,
                Kind::Write(write) => Progress::Done(Err(write.unknown(required))),
                Kind::Read(read) => Progress::Done(Err(read.timed_out(required))),
                Kind::Scan(scan) => Progress::Done(Err(scan.timed_out(&self.preference, required))),
                Kind::Forwarded { .. } => Progress::Done(Err(Error::OutcomeUnknown { acked: 0, required })),
            };
            self.advance_to(id, progress, now, effects);
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, now: Now, effects: &mut Vec<Effect>) {
        if up {
            self.surroundings.alive.insert(node);
        } else {
            self.surroundings.alive.remove(&node);
        }
        for id in self.exchanges.keys().copied().collect::<Vec<_>>() {
            let exchange = self.exchanges.get_mut(&id).expect("listed above");
            let required = exchange.required;
            match &mut exchange.kind {
                Kind::Write(write) if up => {
                    if write.back(node)
                        && let Some(state) = write.state().cloned()
                    {
                        let message = Message::Store {
                            key: write.key.clone(),
                            state,
                        };
                        self.send(id, node, true, message, effects);
                    }
                }
                _ if up => {}
                Kind::Write(write) => write.lost(node),
                Kind::Read(read) => read.lost(node, None),
                Kind::Scan(scan) => scan.lost(node, None),
                Kind::Forwarded { to } if *to == node => {
                    let error = Error::OutcomeUnknown { acked: 0, required };
                    self.advance_to(id, Progress::Done(Err(error)), now, effects);
                    continue;
                }
                Kind::Forwarded { .. } => {}
            }
            if !up {
                self.advance(id, false, now, effects);
            }
        }
    }

    /// One timer serves all exchanges: it is set to the first of their wakes.
    fn set_timer(&mut self, effects: &mut Vec<Effect>) {
        let Some(&(first, _)) = self.wakes.first() else {
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
        match event {
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
                message,
            } => self.message(from, header, message, now, rng, effects),
            Event::Timer { .. } => self.wake(now, effects),
            Event::Peer { node, up } => self.peer(node, up, now, effects),
            // Answers to a request of the boot before must not be taken for answers to one of this boot.
            Event::Start => self.last_exchange = rng.next_u64() >> 1,
            Event::Persisted { .. } | Event::PersistRefused { .. } | Event::Read { .. } => {}
        }
        self.set_timer(effects);
    }
}

/// A request with what its level comes to.
struct Ask {
    origin: Origin,
    header: Header,
    operation: Operation,
    level: Level,
    required: u8,
}

impl Ask {
    fn exchange(self, now: Now, rng: &mut Rng, kind: Kind) -> Exchange {
        Exchange::new(
            self.origin,
            self.operation,
            self.level,
            self.required,
            &self.header,
            now,
            rng,
            kind,
        )
    }
}

/// What a put changes.
struct Change {
    value: Option<Bytes>,
    context: Option<VersionVector>,
    write_id: WriteId,
}

fn refuse(origin: Origin, error: Error, effects: &mut Vec<Effect>) {
    let response: Result<Response, Error> = Err(error);
    effects.push(match origin {
        Origin::Client(client) => Effect::Reply { client, response },
        Origin::Peer(to, header) => Effect::Send {
            to,
            header,
            message: Message::Forwarded(response),
        },
    });
}
