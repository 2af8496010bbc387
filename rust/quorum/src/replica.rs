//! The replica role: one node's share of the keys of a keyspace.
//!
//! It serializes the operations on each key. The first operation on a key reads its state; until all writes since then
//! are durable, the newest state stays in memory (a *lock*), so that the next operation merges into that state and not
//! into an older one on disk. Reads by coordinators return durable state only.
//!
//! Invariants:
//! * A dot is given once: under an id that is replaced whenever a dot may have been lost (see `counters`), from blocks
//!   whose upper end was durable, with the id, before the first was used.
//! * [`Message::Stored`] is sent only when a state that includes the requested one is durable.
//! * A key's state only grows: each persisted state includes all states persisted before it. (This requires a store
//!   that applies the persists of one role and priority in the order in which they were requested.)
//! * A corrupt record is never treated as an empty one, nor is one that is missing although the token index has its key:
//!   the key rejects writes until [`Message::Heal`].
//!
//! A persist that the disk refuses has not happened here. But its state may have been sent to other replicas, and while
//! other persists of the same key are in flight it is part of the state in memory and may still become durable with
//! one of them. So a write is rejected *definitely* only before it has a dot; after that the coordinator learns that
//! this copy failed, and the others decide. When no persist of the key is in flight, the state in memory is discarded
//! and the state on disk is used again.
//!
//! The same holds for a crash: it may lose events that others have, including acknowledged ones. Read repair restores
//! them.

mod counters;
mod merge;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::contract::{Rng, Role};
use quorate_core::dedup::Dedup;
use quorate_core::error::Error;
use quorate_core::hlc::HybridClock;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::store::{Query, Table};
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::placement::Preference;
use quorate_protocol::role::{Address, Effect, Event, RoleId, Surroundings};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_versions::{DotCounter, KeyState, Reservation};

use crate::key_lock::{KeyLock, Work, WorkKind};
use crate::outgoing::Outgoing;

/// The number of dots that are reserved together.
const COUNTER_BLOCK: u64 = 1 << 16;
/// The maximum number of siblings of a key; beyond it, a write needs a context.
pub const MAX_SIBLINGS: usize = 64;
/// The maximum size of a key's state after a write, in bytes.
pub const MAX_STATE_BYTES: usize = 8 << 20;
/// How long a replica whose disk was full rejects writes before it tries the disk again.
const FULL_RETRY_AFTER: Duration = Duration::from_millis(500);
/// The minimum interval between timeline events about the same clock or record.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);
/// About the maximum size of the keys and states of one persist, in bytes: the store executes persists one by one, and
/// votes wait for them.
const PERSIST_BYTES: usize = 256 << 10;
/// About the maximum size of a node's share of a page, in bytes; a single row may be larger.
const SHARE_BYTES: u32 = 1 << 20;
/// The token of the read of the recorded reservation.
const COUNTER_READ: u64 = 0;

/// The purpose of a persist in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Persist {
    /// A block of counters.
    Counter(Reservation),
    /// The new states of keys of one turn, and the waiters of each.
    States(BTreeMap<Key, Vec<Waiter>>),
}

/// A coordinator that is sent [`Message::Stored`] when a persist is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiter {
    to: Address,
    header: Header,
    since: WallTime,
}

impl Waiter {
    fn new(work: &Work, now: Now) -> Self {
        Waiter {
            to: work.from,
            header: work.header,
            since: now.wall,
        }
    }
}

/// The purpose of a read in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Read {
    /// One key's state.
    Point(Key, Lookup, Purpose),
    /// The response to a `FetchRange`.
    Range(Address, Header),
}

/// The purpose of a read of a key's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// To load the lock of the key.
    KeyLock,
    /// The response to a `Fetch`.
    Fetch(Address, Header, WallTime),
}

/// The step of a read of one key. A record whose stored *key* is damaged cannot be found, and must not be treated as
/// never written. The key's row in the token index distinguishes the two: it was written with the record, and neither
/// is ever removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lookup {
    /// Read the record.
    Record,
    /// There was no record: read the row in the token index.
    Index,
    /// There is an index row. Both may have been written since the first read; if there is still no record, it is lost.
    RecordAgain,
}

/// The replica role of one keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    surroundings: Surroundings,
    keyspace: Keyspace,
    preference: Preference,
    /// The reservation of the previous boot has been read.
    started: bool,
    /// Its keyspace was dropped: nothing is stored any more.
    dropped: bool,
    /// `None` until then, and while an event that retires the replica id is handled.
    counter: Option<DotCounter>,
    /// Assignments that wait for dots.
    stalled: Vec<(Key, Work)>,
    clock: HybridClock,
    locks: BTreeMap<Key, KeyLock>,
    persists: BTreeMap<u64, Persist>,
    /// The token of the pending persist of this turn, and about how many bytes it has.
    batch: Option<(u64, usize)>,
    /// Messages to send at the end of this turn.
    outgoing: Outgoing,
    /// [`Effect::EndTurn`] was requested.
    end_turn_requested: bool,
    reads: BTreeMap<u64, Read>,
    last_token: u64,
    /// Until when writes are rejected because the disk was full.
    full_until: Instant,
    /// The disk refused the last completed persist.
    full: bool,
    /// Nodes whose clocks were reported as ahead.
    clocks_reported: Dedup<NodeId>,
    /// Keys whose records were reported as corrupt.
    corrupt_reported: Dedup<Key>,
}

impl Replica {
    /// A replica that takes an id for its dots when it starts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace has more replicas than the cluster has nodes.
    pub fn new(keyspace: &Keyspace, surroundings: &Surroundings) -> Result<Self, Error> {
        Ok(Replica {
            surroundings: surroundings.clone(),
            keyspace: keyspace.clone(),
            preference: surroundings.placement.preference(keyspace.settings.replicas)?,
            started: false,
            dropped: false,
            counter: None,
            stalled: Vec::new(),
            clock: HybridClock::default(),
            locks: BTreeMap::new(),
            persists: BTreeMap::new(),
            batch: None,
            outgoing: Outgoing::default(),
            end_turn_requested: false,
            reads: BTreeMap::new(),
            last_token: COUNTER_READ,
            full_until: Instant(0),
            full: false,
            clocks_reported: Dedup::default(),
            corrupt_reported: Dedup::default(),
        })
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn owns(&self, key: &Key) -> bool {
        self.preference.of(key).contains(&self.surroundings.me())
    }

    /// The error of a request for `of`, of which this node is not a replica.
    fn misdirected(&self, of: impl std::fmt::Display) -> Error {
        Error::Refused(format!(
            "{} holds no replica of {of} in generation {}: refresh the topology",
            self.surroundings.me(),
            self.preference.topology().generation
        ))
    }

    fn counter_row(&self) -> bytes::Bytes {
        quorate_core::key::counter_row(self.keyspace.id)
    }

    /// Executes work on a key: immediately if its state is loaded, else after a read.
    fn admit(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        if !self.owns(&key) {
            return self.reject(&work, self.misdirected(&key), effects);
        }
        if now.instant < self.full_until {
            return self.reject(&work, self.full(), effects);
        }
        match self.locks.get_mut(&key) {
            Some(lock) if lock.state.is_none() => lock.pending.push_back(work),
            Some(_) => self.execute(key, work, now, effects),
            None => {
                let lock = KeyLock {
                    pending: [work].into(),
                    ..KeyLock::default()
                };
                self.locks.insert(key.clone(), lock);
                self.lookup(key, Lookup::Record, Purpose::KeyLock, effects);
            }
        }
    }

    /// The state of a key with a lock has been read: executes the pending work.
    fn loaded(
        &mut self,
        key: Key,
        state: Result<Option<KeyState>, Error>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let lock = self.locks.get_mut(&key).expect("a lock outlives its read");
        match state {
            Ok(state) => {
                lock.indexed = state.is_some();
                lock.state = Some(Arc::new(state.unwrap_or_default()));
            }
            Err(error) => {
                lock.indexed = true;
                lock.corrupt = true;
                lock.state = Some(Arc::default());
                self.report_corrupt(&key, &error, now, effects);
            }
        }
        let lock = self.locks.get_mut(&key).expect("a lock outlives its read");
        for work in std::mem::take(&mut lock.pending) {
            self.execute(key.clone(), work, now, effects);
        }
        self.release(&key);
    }

    /// Removes the lock of a key if it is idle.
    fn release(&mut self, key: &Key) {
        let idle = |lock: &KeyLock| lock.in_flight == 0 && lock.state.is_some() && lock.pending.is_empty();
        if self.locks.get(key).is_some_and(idle) {
            self.locks.remove(key);
        }
    }

    fn execute(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        if work.header.deadline <= now.instant {
            return;
        }
        match &work.kind {
            WorkKind::Assign { .. } => self.assign(key, work, now, effects),
            WorkKind::Store { state, heals } => self.store(key, &work, (state, *heals), now, effects),
        }
    }

    fn report_corrupt(&mut self, key: &Key, error: &Error, now: Now, effects: &mut Vec<Effect>) {
        let quiet_until = now.instant + EVENT_INTERVAL;
        if self
            .corrupt_reported
            .is_new(key.clone(), quiet_until, now.instant)
        {
            let record = error.to_string();
            effects.push(Effect::Emit(TimelineEvent::CorruptRecord { record }));
        }
    }

    /// A message of the coordinator on this node.
    fn local(
        &mut self,
        from: RoleId,
        header: Header,
        message: LocalMessage,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let LocalMessage::Assign {
            key,
            value,
            context,
            write_id,
        } = message
            && header.deadline > now.instant
        {
            let kind = WorkKind::Assign {
                value,
                context,
                write_id,
            };
            let from = Address {
                node: self.surroundings.me(),
                role: from,
            };
            self.admit(key, Work { from, header, kind }, now, effects);
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
            Message::Store { key, state } => {
                let kind = WorkKind::Store { state, heals: false };
                self.admit(key, Work { from, header, kind }, now, effects);
            }
            Message::Heal { key, state } => {
                let kind = WorkKind::Store { state, heals: true };
                self.admit(key, Work { from, header, kind }, now, effects);
            }
            Message::Fetch { key } => self.fetch(key, from, header, now, effects),
            Message::FetchRange { start, end, limit } => {
                self.fetch_range(start..end, limit, (from, header), effects);
            }
            Message::Parts(parts) => {
                for part in parts {
                    let (header, message) = part.unpack(&header);
                    self.message(from, header, message, now, effects);
                }
            }
            // All other messages are for coordinators and control roles.
            _ => {}
        }
    }

    /// Sends a response, at the end of the turn if it can be batched.
    fn send(&mut self, to: Address, header: Header, message: Message, effects: &mut Vec<Effect>) {
        self.outgoing.send(to, header, message, effects);
    }

    /// Rejects work that has not begun.
    fn reject(&mut self, work: &Work, error: Error, effects: &mut Vec<Effect>) {
        self.send(work.from, work.header, Message::Failed(error), effects);
    }
}

impl Role for Replica {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        if self.dropped {
            return;
        }
        match event {
            Event::Dropped => self.dropped = true,
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
            Event::Local {
                from,
                header,
                message,
            } => self.local(from, header, message, now, effects),
            Event::Read { token, result } => self.read(token, result, now, rng, effects),
            Event::Persisted { tokens } => {
                for token in tokens {
                    self.persisted(token, now, rng, effects);
                }
            }
            Event::PersistRefused { token } => self.persist_refused(token, now, rng, effects),
            Event::Request { client, .. } => effects.push(Effect::Reply {
                client,
                response: Err(Error::invalid(format!(
                    "{:?} does not accept client requests",
                    RoleId::Replica(self.keyspace.id)
                ))),
            }),
            Event::TurnEnded => {
                self.end_turn_requested = false;
                self.persist_batch(effects);
                self.outgoing.flush(effects);
            }
            Event::Timer { .. } | Event::Peer { .. } | Event::Flushed { .. } | Event::Files { .. } => {}
        }
        if self.dropped {
            return;
        }
        self.ensure_replica_id(rng, effects);
        let waits = self.batch.is_some() || !self.outgoing.is_empty();
        if waits && !std::mem::replace(&mut self.end_turn_requested, true) {
            effects.push(Effect::EndTurn);
        }
    }
}

fn corrupt(key: &Key) -> Error {
    Error::CorruptRecord(format!(
        "the stored record of {key} is unreadable on this replica: read the key while all of its replicas are up, \
         which heals it, then check the disk"
    ))
}
