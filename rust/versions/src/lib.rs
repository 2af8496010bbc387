//! Versions: which writes a replica has seen of a key, and which of them are still its values.
//!
//! Replicas of a quorum-mode keyspace accept writes without contacting each other, so two of them can change
//! one key at the same time. Neither change may then be dropped silently, and a change that *did* see the
//! other must replace it. Wall clocks cannot distinguish these cases; **dotted version vectors** can
//! (Preguiça, Baquero, Almeida, Fonte, Gonçalves: "Dotted version vectors: logical clocks for optimistic
//! replication", 2012; Riak uses them).
//!
//! * A **dot** names one write: the id of the replica that coordinated it, and that replica's counter. Counters rise
//!   over all keys of a replica and never repeat under one id: see [`DotCounter`].
//! * A **version vector** holds one counter per replica and stands for a set of writes *of one key*: `n1: 5`
//!   means that every write to this key that n1 numbered 5 or lower has been seen. (n1's numbers 1 to 4 may
//!   belong to other keys.) This stays true because replicas only ever send a key's whole state.
//! * A [`KeyState`] is what a replica stores under a key: the **siblings**, values that no other has replaced, each
//!   with its dot, and the **clock**, a version vector that covers them and all that they replaced.
//!
//! A write that is in the clock but not among the siblings was seen and replaced. So merging two states is
//! deterministic: a sibling survives if both have it, or if the one that lacks it has never seen it.
//!
//! A reader gets the clock as its **context** and passes it to its next put. The put replaces exactly the
//! siblings that the context covers: those that the reader saw. A put without context replaces what its
//! coordinating replica sees, so that a single writer that never reads has one value. A delete is a put of a
//! **tombstone**.
//!
//! Coordinators have one obligation: a clock must never cover a write that was not seen. A replica that may
//! have forgotten a write that it gave a dot (it crashed, or its disk refused the state or lost it) must not
//! issue a higher number under the same id: other replicas may have that write, and would treat it as seen
//! and replaced. So its next dots have a new replica id, as with the actor epochs of Riak 2.1. For the same
//! reason a record that cannot be read is an error and never an empty state.
//! (`tests/transcripts/new_id_after_a_crash.txt` shows the failure.)
//!
//! Not included: choosing between siblings (the application's task, or [`KeyState::latest`], the last write
//! by its timestamp) and removing tombstones.

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
