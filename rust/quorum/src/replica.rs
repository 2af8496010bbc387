//! The replica role: one node's share of the keys of a keyspace.
//!
//! It serialises what happens to each key. The first operation on a key reads its state; until everything written
//! since is durable, the newest state stays in memory (a *lock*), so that the next operation merges into that and
//! not into an older one on disk. Reads by others answer from durable state only.
//!
//! Invariants:
//! * A dot is given once, ever: under an id that is drawn anew whenever a dot may have been forgotten (see `counters`),
//!   from blocks whose upper end was durable, with the id, before the first was used.
//! * [`Message::Stored`] leaves only when a state that includes what was asked for is durable.
//! * A key's state only grows: what is persisted includes everything persisted before it. (This takes a store that
//!   applies the persists of one role and priority in the order in which they were asked for.)
//! * A corrupt record is never taken for an empty one, nor is one that is missing although the token index has its key:
//!   the key takes no writes until [`Message::Heal`].
//!
//! A persist that the disk refuses has not happened here. But the others may have been sent what it carried, and while
//! other persists of the same key are in flight it is part of the state in memory and may yet become durable with
//! one of them. So a write is refused *definitely* only before it has a dot; after that its coordinator is told that
//! this copy failed, and the others decide. Once no persist of the key is in flight, the state in memory is forgotten
//! and the disk's counts again.
//!
//! The same holds for a crash: it may take events that others have, acknowledged ones too. They come back by read repair.

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

/// How many dots are reserved at once.
const COUNTER_BLOCK: u64 = 1 << 16;
/// The most siblings a key may have before a write must bring a context.
pub const MAX_SIBLINGS: usize = 64;
/// The largest state of a key that a write may make, in bytes.
pub const MAX_STATE_BYTES: usize = 8 << 20;
/// How long a replica whose disk was full refuses writes before it tries the disk again.
const FULL_RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the same complaint about a clock or a record is not put on the timeline again.
const EVENT_INTERVAL: Duration = Duration::from_secs(10);
/// About how many bytes of keys and states one persist has, at most: the store does one persist after the other, and votes wait
/// for them.
const PERSIST_BYTES: usize = 256 << 10;
/// About how many bytes of keys and states a node's share of a page has; a single row may be larger.
const SHARE_BYTES: u32 = 1 << 20;
/// The token of the read of the recorded reservation.
const COUNTER_READ: u64 = 0;

/// What a persist in flight is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Persist {
    /// A block of counters.
    Counter(Reservation),
    /// What a turn has made of these keys; then those with each are told.
    States(BTreeMap<Key, Vec<Waiter>>),
}

/// Someone who is told when a persist is durable.
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

/// What a read in flight is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Read {
    /// One key's state.
    Point(Key, Lookup, Purpose),
    /// The answer to a `FetchRange`.
    Range(Address, Header),
}

/// Whose key's state it is that is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// That of a key with a lock.
    KeyLock,
    /// The answer to a `Fetch`.
    Fetch(Address, Header, WallTime),
}

/// Where a read of one key is. A record whose stored *key* is damaged cannot be found, and must not be taken for one
/// that was never written. The key's row in the token index tells: it was written with the record, and neither is
/// ever removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lookup {
    /// It looks for the record.
    Record,
    /// There was none: it looks for the row in the token index.
    Index,
    /// There is one. Both may have been written since the first look; if the record still is not there, it is lost.
    RecordAgain,
}

/// The replica role of one keyspace on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    surroundings: Surroundings,
    keyspace: Keyspace,
    preference: Preference,
    /// What was recorded before this start has been read.
    started: bool,
    /// Its keyspace was dropped: nothing is stored any more.
    dropped: bool,
    /// `None` until then, and while an event is handled that makes it take a new id.
    counter: Option<DotCounter>,
    /// Assignments that wait for dots.
    stalled: Vec<(Key, Work)>,
    clock: HybridClock,
    locks: BTreeMap<Key, KeyLock>,
    persists: BTreeMap<u64, Persist>,
    /// The persist of this turn, which has not been asked for yet, and about how many bytes it has.
    batch: Option<(u64, usize)>,
    /// What is said at the end of this turn.
    outgoing: Outgoing,
    /// It was asked to be told of that end.
    end_turn_requested: bool,
    reads: BTreeMap<u64, Read>,
    last_token: u64,
    /// Until when writes are refused because the disk was full.
    full_until: Instant,
    /// The disk refused the last persist that it answered.
    full: bool,
    /// Nodes whose clocks were found ahead.
    clocks_reported: Dedup<NodeId>,
    /// Keys whose records were found corrupt.
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

    /// What to say to whoever takes this node for a replica of `of`.
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

    /// Takes work on a key: at once when its state is known, else after a read.
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

    /// The state of a key with a lock has been read: do what has been waiting for it.
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

    /// A lock that is not needed any longer goes.
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

    /// The coordinator on this node has something written.
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
            // Everything else is said to coordinators and control roles.
            _ => {}
        }
    }

    /// Answers, at the end of the turn if others go with it.
    fn send(&mut self, to: Address, header: Header, message: Message, effects: &mut Vec<Effect>) {
        self.outgoing.send(to, header, message, effects);
    }

    /// This replica does not do it, and has not begun to.
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
                    "{:?} takes no requests",
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
