//! Dots: under which replica id they are given, and how their numbers are reserved in blocks, and waited for when a
//! block is used up.
//!
//! # When a new id is taken
//! A dot leaves for the other replicas while this one's disk still works on it. So what this replica gave out, it may
//! forget. Under the same id its next dot would have a higher number, and claim to have seen the forgotten one: that
//! would then disappear from the others, with all that it had replaced there. Under a new id it claims nothing of the
//! kind; the two stand side by side until somebody has seen both (Riak 2.1 does so, under the name of actor epochs).
//! A replica has a new id
//! * when it starts, since whatever was in flight may be lost;
//! * when its disk refused a state, which had been sent by then;
//! * when a corrupt record was healed by what the others have, which may be less than what they will have once all that is
//!   on the wire has arrived;
//! * when a key's clock is ahead of the counter. Only a context that no read returned does that, but the key must not refuse
//!   plain puts because of it.
//!
//! An id that has given no dot has nothing to forget, and is kept. The price is an entry, of up to 18 bytes, in the
//! vector of each key that is written through this replica after a restart. Nothing prunes them yet.

use quorate_core::bugs::Bug;
use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::ids::ReplicaId;
use quorate_core::store::{JournalOp, Priority, Rows, StateWrite, Table};
use quorate_core::time::Now;
use quorate_protocol::role::Effect;
use quorate_versions::{DotCounter, Reservation};
use rand_core::Rng as _;

use super::{COUNTER_BLOCK, Persist, Replica};

impl Replica {
    /// What was recorded before this start has been read. Only deliberate mistakes go on with it.
    pub(super) fn recover_counter(&mut self, result: Result<Rows, Error>) {
        self.started = true;
        let bugs = self.surroundings.bugs;
        let recorded = result.ok().and_then(|rows| rows.rows.into_iter().next());
        let recorded = recorded.and_then(|(_, row)| Reservation::decode(&row).ok());
        if let Some(Reservation { replica, mark }) = recorded
            && (bugs.has(Bug::CounterRestarts) || bugs.has(Bug::IdKeptAfterCrash))
        {
            let mark = if bugs.has(Bug::CounterRestarts) { 0 } else { mark };
            self.counter = Some(DotCounter::recover(replica, mark, COUNTER_BLOCK));
        }
    }

    /// Dots that were given out may be forgotten here and known elsewhere: the next ones have another id. It is drawn
    /// once the current event has been dealt with ([`Replica::number`]); until then there are no dots.
    pub(super) fn retire_replica_id(&mut self) {
        self.counter = self.counter.take().filter(|counter| !counter.is_used());
    }

    /// Sees to it that there is an id to give dots under.
    pub(super) fn ensure_replica_id(&mut self, rng: &mut Rng, effects: &mut Vec<Effect>) {
        if self.started && self.counter.is_none() {
            let replica = ReplicaId::new(self.surroundings.me(), rng.next_u64());
            self.counter = Some(DotCounter::recover(replica, 0, COUNTER_BLOCK));
            self.reserve(effects);
        }
    }

    pub(super) fn reserve(&mut self, effects: &mut Vec<Effect>) {
        let Some(reservation) = self.counter.as_mut().and_then(DotCounter::reservation) else {
            return;
        };
        let token = self.token();
        self.persists.insert(token, Persist::Counter(reservation));
        let write = StateWrite {
            table: Table::Meta,
            key: self.counter_row(),
            value: Some(reservation.encode()),
        };
        effects.push(Effect::Persist {
            token,
            priority: Priority::Urgent,
            ops: vec![JournalOp::Write(vec![write])],
        });
    }

    /// A reservation is durable: those who wait for dots can have them.
    pub(super) fn reserved(&mut self, reservation: Reservation, now: Now, effects: &mut Vec<Effect>) {
        if let Some(counter) = &mut self.counter {
            counter.reserved(reservation);
        }
        for (key, work) in std::mem::take(&mut self.stalled) {
            self.admit(key, work, now, effects);
        }
    }
}
