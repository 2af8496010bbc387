//! The state of a key on a replica.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use serde::{Deserialize, Serialize};

use crate::vector::{Dot, VersionVector};

/// A write's id, assigned by its client. A retry has the id of the first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId {
    /// Random, drawn by the client when it connects.
    pub client: u64,
    /// Counts the client's writes.
    pub sequence: u64,
}

impl WriteId {
    /// The write that the same client numbered so many later.
    #[must_use]
    pub fn nth(self, later: usize) -> WriteId {
        WriteId {
            client: self.client,
            sequence: self.sequence.wrapping_add(later as u64),
        }
    }
}

/// A value of a key that no other write has replaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sibling {
    /// The write that it comes from.
    pub dot: Dot,
    /// The value; `None` for a delete (a tombstone).
    pub value: Option<Bytes>,
    /// When its coordinator received it, for last-write-wins and for display.
    pub timestamp: Timestamp,
    /// The client's id of the write.
    pub write_id: WriteId,
}

impl Sibling {
    /// Whether it is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

/// A put whose dot the key has already seen.
///
/// Replicas give each write a new dot, so either the context was not read from this key (a client made it up,
/// and its counters are ahead of what the replica has issued), or two replicas share one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "the new version {dot:?} is not new: the key or the put's context already covers {dot_replica} up to {seen}; \
     pass only contexts that a read of this very key returned",
    dot_replica = dot.replica
)]
pub struct DotCovered {
    /// The dot of the put.
    pub dot: Dot,
    /// The replica's counter in the stored state, or in the context.
    pub seen: u64,
}

impl From<DotCovered> for Error {
    fn from(error: DotCovered) -> Error {
        Error::invalid(error.to_string())
    }
}

/// A key's siblings and the clock that covers them. [`KeyState::default`] is a key that was never written.
///
/// Invariants, asserted after each change and checked when decoded: siblings are in the order of their dots,
/// no two share a dot, and the clock covers them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedState")]
pub struct KeyState {
    clock: VersionVector,
    siblings: Vec<Sibling>,
}

/// A key state from a disk or a message.
#[derive(Deserialize)]
struct UncheckedState {
    clock: VersionVector,
    siblings: Vec<Sibling>,
}

impl TryFrom<UncheckedState> for KeyState {
    type Error = String;

    fn try_from(state: UncheckedState) -> Result<Self, String> {
        let state = KeyState {
            clock: state.clock,
            siblings: state.siblings,
        };
        state.check()?;
        Ok(state)
    }
}

impl KeyState {
    /// All writes seen, the replaced ones too. Readers get it as their context.
    pub fn clock(&self) -> &VersionVector {
        &self.clock
    }

    /// The values that no other write has replaced, including tombstones, in the order of their dots.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Approximate size in memory beyond the value itself; at least the size on the wire.
    pub fn size(&self) -> usize {
        let values = self.siblings.iter().filter_map(|sibling| sibling.value.as_ref());
        values.map(Bytes::len).sum::<usize>() + size_of_val(&self.siblings[..]) + self.clock.size()
    }

    /// Whether the key was never written.
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// The state after a write with a new dot.
    ///
    /// With a context, the write replaces the siblings that the context covers and coexists with the others.
    /// Without one, it replaces all siblings of this state. A `value` of `None` deletes.
    ///
    /// # Errors
    /// [`DotCovered`], if this state or the context has already seen the dot: the write would count as
    /// replaced.
    pub fn put(
        &self,
        dot: Dot,
        value: Option<Bytes>,
        timestamp: Timestamp,
        write_id: WriteId,
        context: Option<&VersionVector>,
    ) -> Result<KeyState, DotCovered> {
        let context = context.unwrap_or(&self.clock);
        let seen = self.clock.get(dot.replica).max(context.get(dot.replica));
        if dot.counter <= seen {
            return Err(DotCovered { dot, seen });
        }
        let mut clock = self.clock.clone();
        clock.merge(context);
        clock.record(dot);
        let mut siblings: Vec<Sibling> = self
            .siblings
            .iter()
            .filter(|sibling| !context.contains(sibling.dot))
            .cloned()
            .collect();
        siblings.push(Sibling {
            dot,
            value,
            timestamp,
            write_id,
        });
        siblings.sort_by_key(|sibling| sibling.dot);
        Ok(KeyState { clock, siblings }.checked())
    }

    /// All that either state has seen, and what neither has replaced: a sibling stays if both have it, or if the one
    /// that lacks it has never seen it. Commutative, associative and idempotent.
    pub fn merge(&self, other: &KeyState) -> KeyState {
        let mut clock = self.clock.clone();
        clock.merge(&other.clock);
        let mut siblings: BTreeMap<Dot, &Sibling> = BTreeMap::new();
        for (own, others) in [(self, other), (other, self)] {
            for sibling in &own.siblings {
                if !others.clock.contains(sibling.dot) {
                    siblings.insert(sibling.dot, sibling);
                } else if let Some(twin) = others.sibling(sibling.dot) {
                    // Twins are equal as long as dots never repeat. If they ever did, all replicas choose
                    // alike.
                    siblings.insert(sibling.dot, sibling.max(twin));
                }
            }
        }
        KeyState {
            clock,
            siblings: siblings.into_values().cloned().collect(),
        }
        .checked()
    }

    /// Whether merging `other` into this state would change nothing.
    pub fn includes(&self, other: &KeyState) -> bool {
        self.clock.dominates(&other.clock)
            && self.siblings.iter().all(|own| match other.sibling(own.dot) {
                Some(twin) => twin <= own,
                None => !other.clock.contains(own.dot),
            })
    }

    /// The sibling with this dot.
    pub fn sibling(&self, dot: Dot) -> Option<&Sibling> {
        self.siblings
            .binary_search_by_key(&dot, |sibling| sibling.dot)
            .ok()
            .map(|index| &self.siblings[index])
    }

    /// The sibling of a client's write: the answer to a retry, whichever replica gave it its dot.
    pub fn find_write(&self, write_id: WriteId) -> Option<&Sibling> {
        self.siblings.iter().find(|sibling| sibling.write_id == write_id)
    }

    /// The siblings returned to readers: no tombstones, and only the first, in the order of dots, of those
    /// from the same write of a client (retried through another coordinator).
    ///
    /// Such twins stay in the state, since dropping one in a merge would make the result depend on the order
    /// of merges; the reader's context covers both.
    pub fn live(&self) -> impl Iterator<Item = &Sibling> {
        let mut writes = BTreeSet::new();
        self.siblings
            .iter()
            .filter(move |sibling| !sibling.is_tombstone() && writes.insert(sibling.write_id))
    }

    /// The values of [`KeyState::live`].
    pub fn values(&self) -> impl Iterator<Item = &Bytes> {
        self.live().filter_map(|sibling| sibling.value.as_ref())
    }

    /// Whether the key was written and only tombstones are left.
    pub fn is_deleted(&self) -> bool {
        !self.is_empty() && self.siblings.iter().all(Sibling::is_tombstone)
    }

    /// The last write by timestamp, ties broken by replica id: the last-write-wins value. May be a tombstone.
    pub fn latest(&self) -> Option<&Sibling> {
        self.siblings
            .iter()
            .max_by_key(|sibling| (sibling.timestamp, sibling.dot))
    }

    /// The clock by node name, for display. See [`VersionVector::readable`].
    pub fn readable(&self) -> BTreeMap<String, u64> {
        self.clock.readable()
    }

    /// Any state, for tests of properties of all states.
    #[cfg(test)]
    pub(super) fn from_parts(clock: VersionVector, siblings: Vec<Sibling>) -> Self {
        KeyState { clock, siblings }.checked()
    }

    fn check(&self) -> Result<(), String> {
        if let Some(pair) = self.siblings.windows(2).find(|pair| pair[0].dot >= pair[1].dot) {
            return Err(format!("sibling {:?} before {:?}", pair[0].dot, pair[1].dot));
        }
        match self
            .siblings
            .iter()
            .find(|sibling| !self.clock.contains(sibling.dot))
        {
            Some(sibling) => Err(format!(
                "clock {} does not cover sibling {:?}",
                self.clock, sibling.dot
            )),
            None => Ok(()),
        }
    }

    fn checked(self) -> Self {
        let check = self.check();
        assert!(check.is_ok(), "invalid key state: {check:?} in {self:?}");
        self
    }
}
