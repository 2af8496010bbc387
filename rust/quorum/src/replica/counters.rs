//! Dots: their replica id, and their numbers, which are reserved in blocks. Assignments wait while a block is used up.
//!
//! # When the replica id is replaced
//! A dot is sent to the other replicas while this one's disk still writes it. So this replica may lose a dot that it has
//! given. Under the same id its next dot would have a higher number, and claim to have seen the lost one: that would
//! then disappear from the others, with all that it had replaced there. Under a new id it makes no such claim; the two
//! are siblings until a write has seen both (Riak 2.1 calls this actor epochs). A replica takes a new id
//! * when it starts, since writes in flight may be lost;
//! * when its disk refused a state, which had been sent by then;
//! * when a corrupt record was healed with the state of the others, who may not yet have received all that is on the wire;
//! * when a key's clock is ahead of the counter. Only a forged context causes that, but the key must still accept plain
//!   puts.
//!
//! An id that has given no dot has lost none, and is kept. The cost is an entry, of up to 18 bytes, in the vector of each
//! key that is written through this replica after a restart. They are not pruned yet.

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
    /// The reservation of the previous boot has been read. Only deliberate mistakes continue to use it.
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

    /// Dots that were given may be lost here and known elsewhere: the next ones have another id, which is drawn at the
    /// end of the current event ([`Replica::ensure_replica_id`]); until then there are no dots.
    pub(super) fn retire_replica_id(&mut self) {
        self.counter = self.counter.take().filter(|counter| !counter.is_used());
    }

    /// Draws a replica id if there is none.
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

    /// A reservation is durable: retries the assignments that wait for dots.
    pub(super) fn reserved(&mut self, reservation: Reservation, now: Now, effects: &mut Vec<Effect>) {
        if let Some(counter) = &mut self.counter {
            counter.reserved(reservation);
        }
        for (key, work) in std::mem::take(&mut self.stalled) {
            self.admit(key, work, now, effects);
        }
    }
}
