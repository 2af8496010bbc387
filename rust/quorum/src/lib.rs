//! Quorum mode: leaderless replication with a consistency level per operation, after Dynamo (DeCandia et al., 2007)
//! and Riak's dotted version vectors (Preguiça et al., 2012).
//!
//! # The idea
//! A key's **preference list** is the N nodes that store it. There is no leader among them. Any node can
//! *coordinate* a request: it asks the replicas, counts the answers, and replies when there are as many as the level
//! requires.
//!
//! ```text
//!  client ── Put ──▶ coordinator (a replica of the key)
//!                      │ Assign ▶ own replica: gives the write a dot, merges it into the key's state
//!                      │ ◀ Assigned(state)                  and begins to make it durable
//!                      ├─ Store(state) ▶ the other replicas: merge, make durable
//!                      │ ◀ Stored ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ each, the own one too, when it has the state durably
//!  client ◀ Written ──┘ at any W of them
//! ```
//! A read asks the replicas for their states, merges what comes, replies at R answers, and afterwards sends the
//! merged state to those that lacked something (read repair).
//!
//! What a turn of a role has to say to another goes in one message, whoever it is for: what has come together is answered
//! together, and becomes durable together. A request for many keys is as many reads or writes, each by itself, that come
//! together.
//!
//! # The rules that keep it right
//! * **A write is an event.** Its dot (replica, counter) is given by one replica of the key, which sends its *whole*
//!   merged state, never the bare value. That is what makes a vector entry mean "everything up to here".
//! * **Durable before acknowledged**, at each replica by itself.
//! * **What may be forgotten is not outnumbered.** All disks work on a write at the same time, that of the replica which gave
//!   it its dot too. So a crash can take the write from there and leave it on others, acknowledged or not. Were the
//!   replica's next dot a higher number under the same id, it would claim to have seen the lost one, which would then
//!   disappear from the others, too, and with it, for good, every acknowledged write that it had replaced there. (The
//!   simulator finds that in a few runs.) So a replica that may have forgotten a dot gives its next ones under a **new
//!   replica id**: after each start, after its disk has refused a state, after a corrupt record was healed. Riak 2.1
//!   does the same, per key. It costs vectors an entry per start; the alternative, to send a write only once it is
//!   durable where it happened, costs each write a second sync.
//! * **A corrupt record is not an empty one.** Its replica gives no dots for the key, and takes no writes of others,
//!   until a read has collected what *all* the other replicas have and puts that in its place. Were it to begin anew,
//!   it would count as one of R, and of W, for what it has forgotten.
//! * **Fail fast.** A write that cannot reach W live replicas is refused before anything is written. After that,
//!   only an answer or "unknown" is possible.
//!
//! # What it leaves out, for now
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
