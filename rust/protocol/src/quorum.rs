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
//!                      │ ◀ Stored                           when it has it durably
//!                      ├─ Store(state) ▶ the other replicas: merge, make durable
//!                      │ ◀ Stored ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ each when it has the state durably
//!  client ◀ Written ──┘ at W of them, its own among these
//! ```
//! A read asks the replicas for their states, merges what comes, replies at R answers, and afterwards sends the
//! merged state to those that lacked something (read repair).
//!
//! # The rules that keep it right
//! * **A write is an event.** Its dot (replica, counter) is given by one replica of the key, which sends its *whole*
//!   merged state, never the bare value. That is what makes a vector entry mean "everything up to here".
//! * **Durable before acknowledged**, at each replica by itself.
//! * **Durable where it happened before it is sent.** Were an event sent at once, a crash could take it from its own
//!   replica and leave it on others. The replica's next event would have a higher counter and so claim to have seen
//!   the lost one, which would then disappear from the others, too, and with it, for good, every *acknowledged* write that
//!   it had replaced there. (The simulator found that.) It costs a write at TWO or more the second sync; Riak does the
//!   same. The coordinating replica is therefore always among the W.
//! * **A corrupt record is not an empty one.** Its replica gives no dots for the key, and takes no writes of others,
//!   until a read has collected what *all* the other replicas have and puts that in its place. Were it to begin anew,
//!   its next dot would claim to have seen its own lost ones, and those would disappear from the other replicas too.
//! * **Fail fast.** A write that cannot reach W live replicas is refused before anything is written. After that,
//!   only an answer or "unknown" is possible.
//!
//! # What it leaves out, for now
//! Hinted handoff, Merkle repair and membership changes: a replica that was down catches up by read repair.

pub mod coordinator;
mod exchange;
mod read;
mod recent;
pub mod replica;
mod scan;
mod slot;
mod write;

#[cfg(test)]
mod lab;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod transcripts;
