//! Versions: which writes a replica has seen of a key, and which of them are still its values.
//!
//! Replicas of a quorum-mode keyspace take writes without asking each other, so two of them can change one key at
//! the same time. Neither change may then be thrown away silently, and a change that *did* see the other must
//! replace it. Clocks on the wall cannot tell these cases apart; **dotted version vectors** can (Preguiça, Baquero,
//! Almeida, Fonte, Gonçalves: "Dotted version vectors: logical clocks for optimistic replication", 2012; Riak uses
//! them).
//!
//! * A **dot** names one write: the id of the replica that coordinated it, and that replica's counter. Counters rise
//!   over all keys of a replica and never repeat under one id: see [`DotCounter`].
//! * A **version vector** holds one counter per replica and stands for a set of writes *of one key*: `n1: 5` means
//!   that every write to this key that n1 numbered 5 or lower has been seen. (n1's numbers 1 to 4 may well have gone to
//!   other keys.) Such a statement stays true because replicas only ever send a key's whole state.
//! * A [`KeyState`] is what a replica stores under a key: the **siblings**, values that no other has replaced, each
//!   with its dot, and the **clock**, a version vector that covers them and all that they replaced.
//!
//! A write that is in the clock but not among the siblings was seen and replaced. So two states merge without
//! guessing: a sibling survives if both have it, or if the one that lacks it has never seen it.
//!
//! A reader gets the clock as its **context** and hands it back with its next put. The put replaces exactly the
//! siblings that the context covers: those that the reader saw. A put without context replaces what its coordinating
//! replica sees, so that a single writer that never reads ends up with one value. A delete is a put of a
//! **tombstone**.
//!
//! One thing is asked of whoever coordinates: never to claim by a number what was not seen. A replica that may have
//! forgotten a write that it gave a dot (it crashed, or its disk refused the state or lost it) must not give a higher
//! number under the same id: others may have that write, and would take it for one that was seen and replaced. So its
//! next dots have a new replica id, as with the actor epochs of Riak 2.1. For the same reason a record that cannot be read is an
//! error and never an empty state. (`tests/transcripts/new_id_after_a_crash.txt` shows what goes wrong otherwise.)
//!
//! What this leaves out: deciding between siblings (the application's job, or [`KeyState::latest`], the last write by
//! its timestamp) and forgetting tombstones.

mod context;
mod counter;
mod encoding;
mod state;
mod vector;

pub use context::Context;
pub use counter::{DotCounter, Reservation};
pub use encoding::DecodeError;
pub use state::{DotCovered, KeyState, Sibling, WriteId};
pub use vector::{Causality, Dot, VersionVector};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transcripts;
