//! The write model: all writes of quorum keyspaces, with the causal context of each.
//!
//! The write model observes the messages between coordinators and replicas, so it records every **birth**: the moment at
//! which a replica assigned a dot to a client's write. A birth includes what the write had seen: the context of the client,
//! or, without one, the state of the replica. Births determine which values may be absent: those that some later write had
//! seen, if that write is present or may itself be absent. Any other absent value is lost ([`WriteModel::lost`]).
//!
//! This holds for every write, acknowledged or not, wherever its state was sent: a replica may lose a write in a crash, but
//! no state may claim to include a write that it has not seen. Counters stand for "this and all before it", so a replica that
//! assigned its next dot under the same id would make such a claim. (It shows where clients send contexts. What a plain put
//! had seen is taken from the resulting clock, including false claims.)

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::role::{Address, Effect, Event, RoleId};
use quorate_versions::{Dot, KeyState, VersionVector, WriteId};

/// A write with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The key.
    pub key: Key,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The id of the put, the same for all attempts.
    pub write_id: WriteId,
    /// Whether the client sent no context.
    pub plain: bool,
    /// What it replaced: the client's context, or the state of the replica.
    pub seen: VersionVector,
    /// Whether its only durable copy was corrupted. It may be absent then.
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
    /// Observes an event of a role and its effects. Fails if a dot is assigned twice.
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
            // A retry of the same put finds the dot of the first attempt.
            return if first.write_id == birth.write_id && first.key == birth.key && first.value == birth.value
            {
                Ok(())
            } else {
                Err(format!(
                    "{dot:?} is assigned to two writes of {keyspace}: {first:?} and {birth:?}"
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

    /// A copy of the key was corrupted; `left` is the clock of the other copies.
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

    /// All written keys.
    pub fn keys(&self) -> impl Iterator<Item = &(KeyspaceId, Key)> {
        self.by_key.keys()
    }

    /// The dots of a key, in the order of birth.
    pub fn dots(&self, keyspace: KeyspaceId, key: &Key) -> &[Dot] {
        self.by_key
            .get(&(keyspace, key.clone()))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether this key was ever deleted.
    pub fn was_deleted(&self, keyspace: KeyspaceId, key: &Key) -> bool {
        self.dots(keyspace, key)
            .iter()
            .any(|dot| self.births[&(keyspace, *dot)].value.is_none())
    }

    /// A write that this state claims to include, although it is neither present nor replaced by a write that had seen it.
    pub fn lost(&self, keyspace: KeyspaceId, key: &Key, state: &KeyState) -> Option<Dot> {
        // From the newest to the oldest, so that writes that had seen a write come before it. `replaced` is what the writes
        // had seen that are present, or were themselves replaced.
        let mut replaced = VersionVector::new();
        let mut older = state.clock().clone();
        for &dot in self.dots(keyspace, key).iter().rev() {
            if replaced.dominates(&older) {
                return None;
            }
            if !state.clock().contains(dot) {
                continue;
            }
            // The counters of a replica increase, so the remaining dots have lower ones.
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
