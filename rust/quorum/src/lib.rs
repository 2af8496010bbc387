//! Quorum mode: leaderless replication with a consistency level per operation, after Dynamo (DeCandia et al., 2007)
//! and Riak's dotted version vectors (Preguiça et al., 2012).
//!
//! # The idea
//! A key's **preference list** is the N nodes that store it. There is no leader among them. Any node can
//! *coordinate* a request: it sends it to the replicas, counts their responses, and replies when there are as many as
//! the level requires.
//!
//! ```text
//!  client ── Put ──▶ coordinator (a replica of the key)
//!                      │ Assign ▶ own replica: gives the write a dot, merges it into the key's state
//!                      │ ◀ Assigned(state)                  and begins to make it durable
//!                      ├─ Store(state) ▶ the other replicas: merge, make durable
//!                      │ ◀ Stored ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ each, own replica included, when the state is durable
//!  client ◀ Written ──┘ at any W of them
//! ```
//! A read fetches the states of the replicas, merges them, replies at R responses, and afterwards sends the merged state
//! to stale replicas (read repair).
//!
//! All messages of one turn from a role to another are sent in one envelope, and all states of one turn of a replica are
//! persisted together. A request for many keys is executed as one independent read or write per key.
//!
//! # Invariants
//! * **A write is an event.** Its dot (replica, counter) is given by one replica of the key, which sends its *whole*
//!   merged state, never the bare value. That is what makes a vector entry mean "everything up to here".
//! * **Durable before acknowledged**, on each replica.
//! * **A dot that may be lost is not superseded.** All replicas persist a write at the same time, including the one that
//!   gave it its dot. So a crash can erase the write there and leave it on others, acknowledged or not. If the replica's
//!   next dot had a higher number under the same id, it would claim to have seen the lost one, which would then
//!   disappear from the others, too, and with it, for good, every acknowledged write that it had replaced there. (The
//!   simulator finds that in a few runs.) So a replica that may have lost a dot gives its next ones under a **new
//!   replica id**: after each start, after its disk has refused a state, after a corrupt record was healed. Riak 2.1
//!   does the same, per key. It costs vectors an entry per start; the alternative, sending a write only after it is
//!   durable on the replica that gave the dot, costs each write a second sync.
//! * **A corrupt record is not an empty one.** Its replica gives no dots for the key, and rejects the writes of other
//!   coordinators, until a read has merged the states of *all* the other replicas and replaces the record. A replica
//!   that started over would count towards R and W without the writes it has lost.
//! * **Fail fast.** A write that cannot reach W live replicas is rejected before anything is written. After that, it
//!   either succeeds or its outcome is unknown.
//!
//! # Not implemented
//! Hinted handoff, Merkle repair and membership changes: a replica that was down catches up by read repair.

pub mod coordinator;
mod instance;
mod key_lock;
mod many;
mod operation;
mod outgoing;
mod read;
pub mod replica;
mod scan;
mod write;

pub use instance::Instance;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transcripts;
