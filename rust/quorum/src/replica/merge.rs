//! Merging events and states into keys, and making the result durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::bugs::Bug;
use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::hlc::{MAX_CLOCK_OFFSET, Observed};
use quorate_core::key::{Key, index_key, record_key};
use quorate_core::store::{JournalOp, Priority, StateWrite, Table};
use quorate_core::time::Now;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::Message;
use quorate_protocol::role::Effect;
use quorate_protocol::telemetry::{Span, TimelineEvent};
use quorate_versions::{DotCounter, KeyState};

use super::{
    EVENT_INTERVAL, FULL_RETRY_AFTER, MAX_SIBLINGS, MAX_STATE_BYTES, PERSIST_BYTES, Persist, Replica, Waiter,
    corrupt,
};
use crate::key_lock::{Work, WorkKind};

impl Replica {
    pub(super) fn assign(&mut self, key: Key, work: Work, now: Now, effects: &mut Vec<Effect>) {
        let WorkKind::Assign {
            value,
            context,
            write_id,
        } = &work.kind
        else {
            return;
        };
        let lock = self.locks.get_mut(&key).expect("work is executed on a lock");
        if lock.corrupt {
            let error = corrupt(&key);
            return self.reject(&work, error, effects);
        }
        let state = lock.state.as_ref().expect("work is executed on a loaded lock");
        // A retry of a write that is an event already, of this replica or another: any W durable copies count.
        if let Some(known) = state.find_write(*write_id) {
            let message = LocalMessage::Assigned {
                dot: known.dot,
                timestamp: known.timestamp,
                state: state.clone(),
            };
            effects.push(Effect::SendLocal {
                to: work.from.role,
                header: work.header,
                message,
            });
            return self.acknowledge_when_durable(&key, &work, now, effects);
        }
        let Some(dot) = self.counter.as_mut().and_then(DotCounter::issue) else {
            self.stalled.push((key, work));
            return self.reserve(effects);
        };
        for sibling in state.siblings() {
            // The clock restarts with each boot: a replaced value must not have a later timestamp than its replacement.
            let _ = self.clock.observe(sibling.timestamp, now.wall, MAX_CLOCK_OFFSET);
        }
        let timestamp = self.clock.tick(now.wall);
        if state.clock().contains(dot) {
            self.retire_replica_id();
            return self.stalled.push((key, work));
        }
        let next = match state.put(dot, value.clone(), timestamp, *write_id, context.as_ref()) {
            Ok(next) => next,
            Err(error) => {
                let error = Error::invalid(format!("the context was not issued for this key: {error}"));
                return self.reject(&work, error, effects);
            }
        };
        if let Err(error) = within_limits(&key, &next) {
            return self.reject(&work, error, effects);
        }
        let next = Arc::new(next);
        let sent = if self.surroundings.bugs.has(Bug::SiblingsDropped) {
            Arc::new(without_siblings(&next, dot))
        } else {
            next.clone()
        };
        let message = LocalMessage::Assigned {
            dot,
            timestamp,
            state: sent,
        };
        effects.push(Effect::SendLocal {
            to: work.from.role,
            header: work.header,
            message,
        });
        self.persist(&key, next, &work, now, effects);
        self.reserve(effects);
    }

    pub(super) fn store(
        &mut self,
        key: Key,
        work: &Work,
        (incoming, heals): (&KeyState, bool),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let lock = self.locks.get_mut(&key).expect("work is executed on a lock");
        if lock.corrupt && !heals {
            return self.reject(work, corrupt(&key), effects);
        }
        let state = lock.state.clone().expect("work is executed on a loaded lock");
        let healed = std::mem::take(&mut lock.corrupt);
        if !healed && state.includes(incoming) {
            return self.acknowledge_when_durable(&key, work, now, effects);
        }
        if healed {
            self.retire_replica_id();
        }
        self.adopt_time(incoming, now, effects);
        let merged = state.merge(incoming);
        self.persist(&key, Arc::new(merged), work, now, effects);
    }

    /// Advances the clock past the timestamps of others, so that later writes here have later timestamps.
    fn adopt_time(&mut self, incoming: &KeyState, now: Now, effects: &mut Vec<Effect>) {
        for sibling in incoming.siblings() {
            let Observed::TooFarAhead { ahead } =
                self.clock.observe(sibling.timestamp, now.wall, MAX_CLOCK_OFFSET)
            else {
                continue;
            };
            let node = sibling.dot.replica.node();
            let quiet_until = now.instant + EVENT_INTERVAL;
            if self.clocks_reported.is_new(node, quiet_until, now.instant) {
                let offset_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
                effects.push(Effect::Emit(TimelineEvent::ClockAhead { node, offset_ms }));
            }
        }
    }

    /// The lock's state already includes the requested one: acknowledges it when that is durable.
    fn acknowledge_when_durable(&mut self, key: &Key, work: &Work, now: Now, effects: &mut Vec<Effect>) {
        let lock = &self.locks[key];
        let state = lock.state.clone().expect("work is executed on a loaded lock");
        match lock.newest {
            Some(token) => match self.persists.get_mut(&token) {
                Some(Persist::States(states)) => {
                    let waiters = states.get_mut(key).expect("a lock's newest persist has its key");
                    waiters.push(Waiter::new(work, now));
                }
                other => panic!("a lock's newest persist is one of states in flight, not {other:?}"),
            },
            // The disk refused the state, but earlier persists of the key are still in flight: retry.
            None if lock.in_flight > 0 => self.persist(key, state, work, now, effects),
            None => self.send(work.from, work.header, Message::Stored, effects),
        }
    }

    /// Adds a key's state to the persist of this turn: only the last state of each key, since it includes the others.
    fn persist(&mut self, key: &Key, state: Arc<KeyState>, work: &Work, now: Now, effects: &mut Vec<Effect>) {
        let bytes = key.size() + state.size();
        if self
            .batch
            .is_some_and(|(_, gathered)| gathered + bytes > PERSIST_BYTES)
        {
            self.persist_batch(effects);
        }
        let (token, gathered) = match self.batch {
            Some(gathered) => gathered,
            None => {
                let token = self.token();
                self.persists.insert(token, Persist::States(BTreeMap::new()));
                (token, 0)
            }
        };
        self.batch = Some((token, gathered + bytes));
        let lock = self.locks.get_mut(key).expect("work is executed on a lock");
        lock.state = Some(state);
        if lock.newest.replace(token) != Some(token) {
            lock.in_flight += 1;
        }
        let Some(Persist::States(states)) = self.persists.get_mut(&token) else {
            panic!("a batch is a persist of states");
        };
        let waiters = states.entry(key.clone()).or_default();
        if self.surroundings.bugs.has(Bug::AckBeforeDurable) {
            self.send(work.from, work.header, Message::Stored, effects);
        } else {
            waiters.push(Waiter::new(work, now));
        }
    }

    /// Requests the persist of this turn's states.
    pub(super) fn persist_batch(&mut self, effects: &mut Vec<Effect>) {
        let Some((token, _)) = self.batch.take() else {
            return;
        };
        let Some(Persist::States(states)) = self.persists.get(&token) else {
            panic!("a batch is a persist of states");
        };
        let mut writes = Vec::with_capacity(states.len());
        for key in states.keys() {
            let lock = &self.locks[key];
            let state = lock.state.as_ref().expect("a batched key has a loaded lock");
            writes.push(StateWrite {
                table: Table::Records,
                key: record_key(self.keyspace.id, key),
                value: Some(state.encode()),
            });
            if !lock.indexed {
                writes.push(StateWrite {
                    table: Table::TokenIndex,
                    key: index_key(self.keyspace.id, self.preference.token(key).0, key),
                    value: Some(bytes::Bytes::new()),
                });
            }
        }
        effects.push(Effect::Persist {
            token,
            priority: Priority::Normal,
            ops: vec![JournalOp::Write(writes)],
        });
    }

    pub(super) fn persisted(&mut self, token: u64, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        self.full = false;
        match self.persists.remove(&token) {
            Some(Persist::Counter(reservation)) => self.reserved(reservation, now, effects),
            Some(Persist::States(states)) => {
                for (key, waiters) in states {
                    for waiter in waiters {
                        self.commit_span(&waiter, now, rng, None, effects);
                        self.send(waiter.to, waiter.header, Message::Stored, effects);
                    }
                    self.persist_done(&key, token, true);
                }
            }
            None => panic!("token {token} was not in flight"),
        }
    }

    /// A persist of a key's state has completed.
    fn persist_done(&mut self, key: &Key, token: u64, durable: bool) {
        let lock = self.locks.get_mut(key).expect("a lock outlives its persists");
        lock.in_flight -= 1;
        lock.indexed |= durable;
        lock.newest = lock.newest.filter(|newest| *newest != token);
        self.release(key);
    }

    pub(super) fn persist_refused(&mut self, token: u64, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.full, true) {
            effects.push(Effect::Emit(TimelineEvent::StorageFull));
        }
        self.full_until = now.instant + FULL_RETRY_AFTER;
        match self.persists.remove(&token) {
            Some(Persist::Counter(reservation)) => {
                if let Some(counter) = &mut self.counter {
                    counter.reservation_failed(reservation);
                }
                for (_, work) in std::mem::take(&mut self.stalled) {
                    self.reject(&work, self.full(), effects);
                }
            }
            Some(Persist::States(states)) => {
                self.retire_replica_id();
                let full = self.full();
                // Not definite: other replicas may have it, and later persists that are in flight carry it.
                let unknown = Error::OutcomeUnknown {
                    acked: 0,
                    required: 1,
                    reason: Some(format!("the disk of {} is full", self.surroundings.me())),
                };
                for (key, waiters) in states {
                    for waiter in waiters {
                        self.commit_span(&waiter, now, rng, Some(&full), effects);
                        let failed = Message::Failed(unknown.clone());
                        self.send(waiter.to, waiter.header, failed, effects);
                    }
                    self.persist_done(&key, token, false);
                }
            }
            None => panic!("token {token} was not in flight"),
        }
    }

    pub(super) fn full(&self) -> Error {
        Error::StorageFull(format!(
            "the disk of {} is full: raise map_size_bytes in its configuration or free space, then retry",
            self.surroundings.me()
        ))
    }

    fn commit_span(
        &self,
        waiter: &Waiter,
        now: Now,
        rng: &mut Rng,
        error: Option<&Error>,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.surroundings.me();
        if let Some(trace) = waiter.header.trace.filter(|trace| trace.sampled) {
            let span = Span::child(trace, rng, "storage.commit", me, waiter.since, now.wall);
            effects.push(Effect::Span(Box::new(span.failed(error))));
        }
    }
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

/// The state with all siblings but one dropped: the deliberate mistake [`quorate_core::bugs::Bug::SiblingsDropped`].
fn without_siblings(state: &KeyState, dot: quorate_versions::Dot) -> KeyState {
    let sibling = state.sibling(dot).expect("the sibling was just added");
    let (value, write_id) = (sibling.value.clone(), sibling.write_id);
    let mut context = quorate_versions::VersionVector::new();
    for seen in state.clock().iter().filter(|seen| seen.replica != dot.replica) {
        context.record(seen);
    }
    KeyState::default()
        .put(dot, value, sibling.timestamp, write_id, Some(&context))
        .expect("the context leaves the dot out")
}
