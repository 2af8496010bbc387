//! The replica role: one node's share of the keys of a keyspace.
//!
//! It serialises what happens to each key. The first operation on a key reads its state; until everything written
//! since is durable, the newest state stays in memory (a *slot*), so that the next operation merges into that and
//! not into an older one on disk. Reads by others answer from durable state only.
//!
//! Invariants:
//! * A dot is issued once, ever: counters come from blocks whose upper end was durable before the first was used.
//! * [`Message::Stored`] leaves only when a state that includes what was asked for is durable.
//! * A key's state only grows: what is persisted includes everything persisted before it.
//!
//! After a crash this replica may have sent out dots that it lost. Its next events have higher counters, and a
//! vector entry covers everything below it: a lost event that survives on another replica is treated as replaced by
//! the next event of the same key. Only unacknowledged writes can be lost that way, since the coordinating replica
//! is always among the W.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::hlc::{HybridClock, MAX_CLOCK_OFFSET, Observed};
use crate::key::{Key, decode_record_key, index_key, record_key};
use crate::keyspace::Keyspace;
use crate::message::{Header, Message};
use crate::placement::Preference;
use crate::quorum::slot::{Slot, Work, WorkKind};
use crate::role::{Address, Effect, Event, Query, Rng, Role, RoleId, Rows, Surroundings};
use crate::store::{JournalOp, Priority, StateWrite, Table};
use crate::telemetry::{Span, TimelineEvent};
use crate::time::{Instant, Now, WallTime};
use crate::versions::{DotCounter, KeyState};

/// How many dots are reserved at once. A crash wastes at most this many.
const COUNTER_BLOCK: u64 = 1 << 16;
/// The most siblings a key may have before a write must bring a context.
pub const MAX_SIBLINGS: usize = 64;
/// The largest state of a key that a write may make, in bytes.
pub const MAX_STATE_BYTES: usize = 8 << 20;
/// How long a replica whose disk was full refuses writes before it tries the disk again.
const FULL_PAUSE_MICROS: u64 = 500_000;
/// The token of the read of the reserved counter.
const COUNTER_READ: u64 = 0;

/// What a persist in flight is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Persist {
    /// The end of a block of counters.
    Counter(u64),
    /// A key's state; then these are told.
    State { key: Key, tell: Vec<Told> },
}

/// Someone who is told when a persist is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Told {
    to: Address,
    header: Header,
    since: WallTime,
}

/// What a read in flight is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Read {
    /// The state of a key with a slot.
    Slot(Key),
    /// The answer to a `Fetch`.
    Fetch(Key, Address, Header, WallTime),
    /// The answer to a `FetchRange`.
    Range(Address, Header),
}

/// The replica role of one keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    surroundings: Surroundings,
    keyspace: Keyspace,
    preference: Preference,
    /// `None` until the reserved counter has been read.
    counter: Option<DotCounter>,
    /// Assignments that wait for counters.
    stalled: Vec<(Key, Work)>,
    clock: HybridClock,
    slots: BTreeMap<Key, Slot>,
    persists: BTreeMap<u64, Persist>,
    reads: BTreeMap<u64, Read>,
    last_token: u64,
    /// Until when writes are refused because the disk was full.
    full_until: Instant,
}

impl Replica {
    /// A replica that reads its reserved counter when it starts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace has more replicas than the cluster has nodes.
    pub fn new(keyspace: &Keyspace, surroundings: &Surroundings) -> Result<Self, Error> {
        Ok(Replica {
            surroundings: surroundings.clone(),
            keyspace: keyspace.clone(),
            preference: surroundings.placement.preference(keyspace.settings.replicas)?,
            counter: None,
            stalled: Vec::new(),
            clock: HybridClock::default(),
            slots: BTreeMap::new(),
            persists: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_token: COUNTER_READ,
            full_until: Instant(0),
        })
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn owns(&self, key: &Key) -> bool {
        self.preference.of(key).contains(&self.surroundings.me())
    }

    fn counter_row(&self) -> bytes::Bytes {
        format!("counter/{}", self.keyspace.id.0).into()
    }

    // ---- counters ----

    fn recover_counter(&mut self, result: Result<Rows, Error>, now: Now, effects: &mut Vec<Effect>) {
        let rows = result.unwrap_or_else(|error| panic!("the reserved counter cannot be read: {error}"));
        let mark = rows.rows.first().map_or(0, |(_, value)| {
            let bytes: [u8; 8] = value
                .as_ref()
                .try_into()
                .expect("a reserved counter has eight bytes");
            u64::from_le_bytes(bytes)
        });
        let mark = if self.surroundings.bugs.counter_restarts {
            0
        } else {
            mark
        };
        self.counter = Some(DotCounter::recover(
            self.surroundings.replica,
            mark,
            COUNTER_BLOCK,
        ));
        self.reserve(effects);
        self.resume_stalled(now, effects);
    }

    fn reserve(&mut self, effects: &mut Vec<Effect>) {
        let Some(mark) = self.counter.as_mut().and_then(DotCounter::reservation) else {
            return;
        };
        let token = self.token();
        self.persists.insert(token, Persist::Counter(mark));
        let write = StateWrite {
            table: Table::Meta,
            key: self.counter_row(),
            value: Some(mark.to_le_bytes().to_vec().into()),
        };
        effects.push(Effect::Persist {
            token,
            priority: Priority::Urgent,
            ops: vec![JournalOp::Write(vec![write])],
        });
    }

    fn resume_stalled(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (key, work) in std::mem::take(&mut self.stalled) {
            self.admit(key, work, now, effects);
        }
    }

    // ---- keys ----

    /// Takes work on a key: at once when its state is known, else after a read.
    fn admit(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        if !self.owns(&key) {
            let error = Error::Refused(format!(
                "{} holds no replica of {key} in generation {}: refresh the topology",
                self.surroundings.me(),
                self.preference.topology().generation
            ));
            return fail(work, error, effects);
        }
        if now.instant < self.full_until {
            return fail(work, self.full(), effects);
        }
        match self.slots.get_mut(&key) {
            Some(slot) if slot.state.is_none() => slot.waiting.push_back(work),
            Some(_) => self.execute(key, work, now, effects),
            None => {
                let token = self.token();
                let query = Query::Get {
                    table: Table::Records,
                    key: record_key(self.keyspace.id, &key),
                };
                self.reads.insert(token, Read::Slot(key.clone()));
                self.slots.insert(
                    key,
                    Slot {
                        waiting: [work].into(),
                        ..Slot::default()
                    },
                );
                effects.push(Effect::Read { token, query });
            }
        }
    }

    /// The state of a key with a slot has been read: do what has been waiting for it.
    fn loaded(&mut self, key: Key, result: Result<Rows, Error>, now: Now, effects: &mut Vec<Effect>) {
        let slot = self.slots.get_mut(&key).expect("a slot outlives its read");
        match decode_state(&key, result) {
            Ok(state) => {
                slot.stored = state.is_some();
                slot.state = Some(state.unwrap_or_default());
            }
            Err(error) => {
                effects.push(Effect::Emit(TimelineEvent::CorruptRecord {
                    record: error.to_string(),
                }));
                slot.corrupt = true;
                slot.stored = true;
                slot.state = Some(KeyState::default());
            }
        }
        for work in std::mem::take(&mut slot.waiting) {
            self.execute(key.clone(), work, now, effects);
        }
        self.release(&key);
    }

    /// A slot that is not needed any longer goes.
    fn release(&mut self, key: &Key) {
        let idle = |slot: &Slot| slot.in_flight == 0 && slot.state.is_some() && slot.waiting.is_empty();
        if self.slots.get(key).is_some_and(idle) {
            self.slots.remove(key);
        }
    }

    fn execute(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        if work.header.deadline <= now.instant {
            return;
        }
        match &work.kind {
            WorkKind::Assign { .. } => self.assign(key, work, now, effects),
            WorkKind::Store { state } => self.store(key, &work, state, now, effects),
        }
    }

    fn assign(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        let WorkKind::Assign {
            value,
            context,
            write_id,
        } = &work.kind
        else {
            return;
        };
        let slot = self.slots.get_mut(&key).expect("work is executed on a slot");
        if slot.corrupt {
            let error = corrupt(&key);
            return fail(work, error, effects);
        }
        let state = slot.state.as_ref().expect("work is executed on a loaded slot");
        if let Some(known) = state.find_write(*write_id) {
            let message = Message::Assigned {
                dot: known.dot,
                timestamp: known.timestamp,
                state: state.clone(),
            };
            effects.push(Effect::Send {
                to: work.from,
                header: work.header,
                message,
            });
            return self.tell_when_durable(&key, &work, now, effects);
        }
        let Some(dot) = self.counter.as_mut().and_then(DotCounter::issue) else {
            self.stalled.push((key, work));
            return;
        };
        let timestamp = self.clock.tick(now.wall);
        let next = match state.put(dot, value.clone(), timestamp, *write_id, context.as_ref()) {
            Ok(next) => next,
            Err(error) => {
                let error = Error::invalid(format!("the context was not issued for this key: {error}"));
                return fail(work, error, effects);
            }
        };
        if let Err(error) = within_limits(&key, &next) {
            return fail(work, error, effects);
        }
        let sent = if self.surroundings.bugs.siblings_dropped {
            only(&next, dot)
        } else {
            next.clone()
        };
        let message = Message::Assigned {
            dot,
            timestamp,
            state: sent,
        };
        effects.push(Effect::Send {
            to: work.from,
            header: work.header,
            message,
        });
        self.persist(&key, next, &work, now, effects);
        self.reserve(effects);
    }

    fn store(&mut self, key: Key, work: &Work, incoming: &KeyState, now: Now, effects: &mut Vec<Effect>) {
        for sibling in incoming.siblings() {
            if let Observed::TooFarAhead { ahead } =
                self.clock.observe(sibling.timestamp, now.wall, MAX_CLOCK_OFFSET)
            {
                let offset_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
                let node = sibling.dot.replica.node();
                effects.push(Effect::Emit(TimelineEvent::ClockAhead { node, offset_ms }));
            }
        }
        let slot = self.slots.get_mut(&key).expect("work is executed on a slot");
        let state = slot.state.as_ref().expect("work is executed on a loaded slot");
        if !slot.corrupt && state.includes(incoming) {
            return self.tell_when_durable(&key, work, now, effects);
        }
        let merged = state.merge(incoming);
        slot.corrupt = false;
        self.persist(&key, merged, work, now, effects);
    }

    /// What was asked for is part of the slot's state already: tell so when that is durable.
    fn tell_when_durable(&mut self, key: &Key, work: &Work, now: Now, effects: &mut Vec<Effect>) {
        let slot = &self.slots[key];
        if slot.in_flight == 0 {
            effects.push(Effect::Send {
                to: work.from,
                header: work.header,
                message: Message::Stored,
            });
            return;
        }
        match self.persists.get_mut(&slot.last_token) {
            Some(Persist::State { tell, .. }) => {
                tell.push(Told {
                    to: work.from,
                    header: work.header,
                    since: now.wall,
                });
            }
            other => panic!("a slot's last persist is a state in flight, not {other:?}"),
        }
    }

    fn persist(&mut self, key: &Key, state: KeyState, work: &Work, now: Now, effects: &mut Vec<Effect>) {
        let token = self.token();
        let slot = self.slots.get_mut(key).expect("work is executed on a slot");
        let mut writes = vec![StateWrite {
            table: Table::Records,
            key: record_key(self.keyspace.id, key),
            value: Some(state.encode()),
        }];
        if !slot.stored {
            writes.push(StateWrite {
                table: Table::TokenIndex,
                key: index_key(self.keyspace.id, self.preference.token(key).0, key),
                value: Some(bytes::Bytes::new()),
            });
        }
        slot.stored = true;
        slot.state = Some(state);
        slot.in_flight += 1;
        slot.last_token = token;
        let mut tell = vec![Told {
            to: work.from,
            header: work.header,
            since: now.wall,
        }];
        if self.surroundings.bugs.ack_before_durable {
            effects.push(Effect::Send {
                to: work.from,
                header: work.header,
                message: Message::Stored,
            });
            tell.clear();
        }
        self.persists.insert(
            token,
            Persist::State {
                key: key.clone(),
                tell,
            },
        );
        effects.push(Effect::Persist {
            token,
            priority: Priority::Normal,
            ops: vec![JournalOp::Write(writes)],
        });
    }

    fn persisted(&mut self, token: u64, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        match self.persists.remove(&token) {
            Some(Persist::Counter(mark)) => {
                self.counter
                    .as_mut()
                    .expect("reserved after recovery")
                    .reserved(mark);
                self.resume_stalled(now, effects);
            }
            Some(Persist::State { key, tell }) => {
                for told in tell {
                    self.commit_span(&told, now, rng, None, effects);
                    effects.push(Effect::Send {
                        to: told.to,
                        header: told.header,
                        message: Message::Stored,
                    });
                }
                self.settle(&key);
            }
            None => panic!("token {token} was not in flight"),
        }
    }

    fn settle(&mut self, key: &Key) {
        let slot = self.slots.get_mut(key).expect("a slot outlives its persists");
        slot.in_flight -= 1;
        self.release(key);
    }

    fn refused(&mut self, token: u64, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        if now.instant >= self.full_until {
            effects.push(Effect::Emit(TimelineEvent::StorageFull));
        }
        self.full_until = Instant(now.instant.0 + FULL_PAUSE_MICROS);
        match self.persists.remove(&token) {
            Some(Persist::Counter(_)) => {
                self.counter
                    .as_mut()
                    .expect("reserved after recovery")
                    .reservation_failed();
                for (_, work) in std::mem::take(&mut self.stalled) {
                    fail(work, self.full(), effects);
                }
            }
            Some(Persist::State { key, tell }) => {
                for told in tell {
                    let error = self.full();
                    self.commit_span(&told, now, rng, Some(&error), effects);
                    let message = Message::Failed(error);
                    effects.push(Effect::Send {
                        to: told.to,
                        header: told.header,
                        message,
                    });
                }
                self.settle(&key);
            }
            None => panic!("token {token} was not in flight"),
        }
    }

    fn full(&self) -> Error {
        Error::StorageFull(format!(
            "the disk of {} is full: this replica writes nothing until there is space",
            self.surroundings.me()
        ))
    }

    fn commit_span(
        &self,
        told: &Told,
        now: Now,
        rng: &mut Rng,
        error: Option<&Error>,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.surroundings.me();
        if let Some(trace) = told.header.trace.filter(|trace| trace.sampled) {
            let span = Span::child(trace, rng, "storage.commit", me, told.since, now.wall);
            effects.push(Effect::Span(Box::new(span.failed(error))));
        }
    }

    // ---- reads ----

    fn fetch(&mut self, key: Key, from: Address, header: Header, now: Now, effects: &mut Vec<Effect>) {
        let token = self.token();
        let query = Query::Get {
            table: Table::Records,
            key: record_key(self.keyspace.id, &key),
        };
        self.reads.insert(token, Read::Fetch(key, from, header, now.wall));
        effects.push(Effect::Read { token, query });
    }

    fn read(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if token == COUNTER_READ {
            return self.recover_counter(result, now, effects);
        }
        match self.reads.remove(&token).expect("a read answers once") {
            Read::Slot(key) => self.loaded(key, result, now, effects),
            Read::Fetch(key, to, header, since) => {
                let message = match decode_state(&key, result) {
                    Ok(state) => Message::Fetched {
                        state: state.unwrap_or_default(),
                    },
                    Err(error) => {
                        effects.push(Effect::Emit(TimelineEvent::CorruptRecord {
                            record: error.to_string(),
                        }));
                        Message::Failed(error)
                    }
                };
                if let Some(trace) = header.trace.filter(|trace| trace.sampled) {
                    let me = self.surroundings.me();
                    let span = Span::child(trace, rng, "storage.read", me, since, now.wall);
                    effects.push(Effect::Span(Box::new(span)));
                }
                effects.push(Effect::Send { to, header, message });
            }
            Read::Range(to, header) => {
                let message = match result.and_then(|rows| decode_rows(&rows).map(|page| (page, rows.more))) {
                    Ok((rows, more)) => Message::FetchedRange { rows, more },
                    Err(error) => Message::Failed(error),
                };
                effects.push(Effect::Send { to, header, message });
            }
        }
    }

    fn message(
        &mut self,
        from: Address,
        header: Header,
        message: Message,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if header.deadline <= now.instant {
            return;
        }
        match message {
            Message::Assign {
                key,
                value,
                context,
                write_id,
            } => {
                let kind = WorkKind::Assign {
                    value,
                    context,
                    write_id,
                };
                self.admit(key, Work { from, header, kind }, now, effects);
            }
            Message::Store { key, state } => {
                let kind = WorkKind::Store { state };
                self.admit(key, Work { from, header, kind }, now, effects);
            }
            Message::Fetch { key } => self.fetch(key, from, header, now, effects),
            Message::FetchRange { start, end, limit } => {
                let token = self.token();
                self.reads.insert(token, Read::Range(from, header));
                let table = Table::Records;
                let query = Query::Range {
                    table,
                    start,
                    end,
                    limit_rows: limit,
                    limit_bytes: 1 << 20,
                };
                effects.push(Effect::Read { token, query });
            }
            // Answers to the read repair of a coordinator that has finished arrive at that coordinator, not here.
            _ => {}
        }
    }
}

impl Role for Replica {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => effects.push(Effect::Read {
                token: COUNTER_READ,
                query: Query::Get {
                    table: Table::Meta,
                    key: self.counter_row(),
                },
            }),
            Event::Message {
                from,
                header,
                message,
            } => self.message(from, header, message, now, effects),
            Event::Read { token, result } => self.read(token, result, now, rng, effects),
            Event::Persisted { tokens } => {
                for token in tokens {
                    self.persisted(token, now, rng, effects);
                }
            }
            Event::PersistRefused { token } => self.refused(token, now, rng, effects),
            Event::Request { client, .. } => effects.push(Effect::Reply {
                client,
                response: Err(Error::invalid(format!(
                    "{:?} takes no requests",
                    RoleId::Replica(self.keyspace.id)
                ))),
            }),
            Event::Timer { .. } | Event::Peer { .. } => {}
        }
    }
}

fn fail(work: Work, error: Error, effects: &mut Vec<Effect>) {
    effects.push(Effect::Send {
        to: work.from,
        header: work.header,
        message: Message::Failed(error),
    });
}

fn corrupt(key: &Key) -> Error {
    Error::CorruptRecord(format!(
        "the stored record of {key} fails its checksum on this replica: read the key at QUORUM to repair it, then \
         check the disk"
    ))
}

fn decode_state(key: &Key, result: Result<Rows, Error>) -> Result<Option<KeyState>, Error> {
    match result?.rows.first() {
        None => Ok(None),
        Some((_, value)) => KeyState::decode(value).map(Some).map_err(|_| corrupt(key)),
    }
}

fn decode_rows(rows: &Rows) -> Result<Vec<(Key, KeyState)>, Error> {
    let decode = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
        let (_, key) = decode_record_key(key).map_err(|error| Error::CorruptRecord(error.to_string()))?;
        let state = KeyState::decode(value).map_err(|_| corrupt(&key))?;
        Ok((key, state))
    };
    rows.rows.iter().map(decode).collect()
}

fn within_limits(key: &Key, state: &KeyState) -> Result<(), Error> {
    let remedy = "read the key and put the merged value with the entry's context".to_owned();
    let (what, size, limit) = if state.siblings().len() > MAX_SIBLINGS {
        (
            format!("the number of siblings of {key}"),
            state.siblings().len(),
            MAX_SIBLINGS,
        )
    } else {
        let size: usize = state.values().map(bytes::Bytes::len).sum();
        if size <= MAX_STATE_BYTES {
            return Ok(());
        }
        (
            format!("the size of all siblings of {key} in bytes"),
            size,
            MAX_STATE_BYTES,
        )
    };
    Err(Error::LimitExceeded {
        what,
        size: size as u64,
        limit: limit as u64,
        remedy,
    })
}

/// The state with all siblings but one forgotten: the mistake that [`crate::bugs::Bugs::siblings_dropped`] makes.
fn only(state: &KeyState, dot: crate::versions::Dot) -> KeyState {
    let sibling = state.sibling(dot).expect("the sibling was just added");
    let (value, write_id) = (sibling.value.clone(), sibling.write_id);
    let mut context = crate::versions::VersionVector::new();
    for seen in state.clock().iter().filter(|seen| seen.replica != dot.replica) {
        context.record(seen);
    }
    KeyState::default()
        .put(dot, value, sibling.timestamp, write_id, Some(&context))
        .expect("the context leaves the dot out")
}
