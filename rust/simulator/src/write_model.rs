//! The write model: who wrote what having seen what, known from above.
//!
//! The write model watches the messages between coordinators and replicas, so it knows every **birth**: the moment at which
//! a replica made a client's write an event of its key and gave it a dot. A birth comes with what the write had seen:
//! the context of the client, or, without one, what the replica saw. From births alone follows which values may be
//! gone: one that some later write had seen, if that write is there itself or may be gone in turn. Everything else
//! that is gone has been lost ([`WriteModel::lost`]).
//!
//! That goes for every write, acknowledged or not, wherever its state has been sent: a replica may forget a write in a
//! crash, but nobody may claim to have seen it who has not. Counters stand for "this and all before it", so a replica
//! that gave its next dot under the same id would claim just that. (It shows where clients bring contexts. What a plain put
//! had seen is known from the clock that it left behind, claims included.)

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::role::{Address, Effect, Event, RoleId};
use quorate_versions::{Dot, KeyState, VersionVector, WriteId};

/// A write that became an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Of which key.
    pub key: Key,
    /// What was written; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Which put it was: the same for all attempts.
    pub write_id: WriteId,
    /// Whether the client brought no context.
    pub plain: bool,
    /// What it replaced: the client's context, or what the replica saw.
    pub seen: VersionVector,
    /// Whether its only durable copy has rotted. It may be gone without a trace then.
    pub forfeited: bool,
}

/// Identifies an `Assign` until its `Assigned`.
type Pending = (Address, RoleId, u64);

/// All births of a run.
#[derive(Clone, Debug, Default)]
pub struct WriteModel {
    births: BTreeMap<(KeyspaceId, Dot), Birth>,
    by_key: BTreeMap<(KeyspaceId, Key), Vec<Dot>>,
    pending: BTreeMap<Pending, (Key, Option<Bytes>, Option<VersionVector>, WriteId)>,
}

impl WriteModel {
    /// Takes note of what a role was given and did. An error is a dot that is issued twice.
    pub fn observe(&mut self, me: Address, event: &Event, effects: &[Effect]) -> Result<(), String> {
        let RoleId::Replica(keyspace) = me.role else {
            return Ok(());
        };
        if let Event::Local {
            from,
            header,
            message:
                LocalMessage::Assign {
                    key,
                    value,
                    context,
                    write_id,
                },
        } = event
        {
            let asked = (key.clone(), value.clone(), context.clone(), *write_id);
            self.pending.insert((me, *from, header.request), asked);
        }
        for effect in effects {
            if let Effect::SendLocal {
                to,
                header,
                message: LocalMessage::Assigned { dot, state, .. },
            } = effect
                && let Some((key, value, context, write_id)) = self.pending.remove(&(me, *to, header.request))
            {
                let plain = context.is_none();
                let seen = context.unwrap_or_else(|| all_but(state.clock(), *dot));
                let birth = Birth {
                    key,
                    value,
                    write_id,
                    plain,
                    seen,
                    forfeited: false,
                };
                self.born(keyspace, *dot, birth)?;
            }
        }
        Ok(())
    }

    fn born(&mut self, keyspace: KeyspaceId, dot: Dot, birth: Birth) -> Result<(), String> {
        if let Some(first) = self.births.get(&(keyspace, dot)) {
            // A repeated attempt of the same put finds the event of the first one.
            return if first.write_id == birth.write_id && first.key == birth.key && first.value == birth.value
            {
                Ok(())
            } else {
                Err(format!(
                    "{dot:?} names two writes of {keyspace}: {first:?} and {birth:?}"
                ))
            };
        }
        self.by_key
            .entry((keyspace, birth.key.clone()))
            .or_default()
            .push(dot);
        self.births.insert((keyspace, dot), birth);
        Ok(())
    }

    /// A copy of the key has rotted; `left` is what the other copies cover.
    pub fn forfeit(&mut self, keyspace: KeyspaceId, key: &Key, left: &VersionVector) {
        for dot in self.dots(keyspace, key).to_vec() {
            if let Some(birth) = self.births.get_mut(&(keyspace, dot)) {
                birth.forfeited |= !left.contains(dot);
            }
        }
    }

    /// The write with this dot.
    pub fn birth(&self, keyspace: KeyspaceId, dot: Dot) -> Option<&Birth> {
        self.births.get(&(keyspace, dot))
    }

    /// The keys that were written.
    pub fn keys(&self) -> impl Iterator<Item = &(KeyspaceId, Key)> {
        self.by_key.keys()
    }

    /// The dots of a key, in the order of birth.
    pub fn dots(&self, keyspace: KeyspaceId, key: &Key) -> &[Dot] {
        self.by_key
            .get(&(keyspace, key.clone()))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether anybody ever deleted this key.
    pub fn was_deleted(&self, keyspace: KeyspaceId, key: &Key) -> bool {
        self.dots(keyspace, key)
            .iter()
            .any(|dot| self.births[&(keyspace, *dot)].value.is_none())
    }

    /// A write that this state claims to include, although it is neither there nor replaced by a write that had seen it.
    pub fn lost(&self, keyspace: KeyspaceId, key: &Key, state: &KeyState) -> Option<Dot> {
        // From the newest to the oldest, so that whoever had seen a write comes before it. `replaced` is what those that
        // are there, or were themselves rightly replaced, had seen.
        let mut replaced = VersionVector::new();
        let mut older = state.clock().clone();
        for &dot in self.dots(keyspace, key).iter().rev() {
            if replaced.dominates(&older) {
                return None;
            }
            if !state.clock().contains(dot) {
                continue;
            }
            // The numbers of a replica rise, so what is left of it has lower ones.
            older = older
                .iter()
                .filter_map(|left| {
                    at_most(
                        left,
                        Dot {
                            counter: dot.counter - 1,
                            ..dot
                        },
                    )
                })
                .collect();
            if state.sibling(dot).is_none() && !replaced.contains(dot) {
                return Some(dot);
            }
            replaced.merge(&self.births[&(keyspace, dot)].seen);
        }
        None
    }
}

/// `dot`, or `limit` if that is of the same replica and lower; `None` when nothing is left.
fn at_most(dot: Dot, limit: Dot) -> Option<Dot> {
    let lower = if dot.replica == limit.replica {
        Dot {
            counter: dot.counter.min(limit.counter),
            ..dot
        }
    } else {
        dot
    };
    (lower.counter > 0).then_some(lower)
}

/// The vector without the newest event, which is the write itself.
fn all_but(clock: &VersionVector, dot: Dot) -> VersionVector {
    let before = |seen: Dot| {
        if seen == dot {
            Dot {
                counter: dot.counter - 1,
                ..dot
            }
        } else {
            seen
        }
    };
    clock.iter().map(before).filter(|seen| seen.counter > 0).collect()
}

#[cfg(test)]
#[path = "write_model_tests.rs"]
mod tests;
