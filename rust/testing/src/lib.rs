//! An in-memory cluster with a manual clock, for tests of protocols that are pure state machines.
//!
//! A test defines a protocol with a [`Protocol`]: how an instance of a role handles an event, and the meaning of its effects.
//! A [`Cluster`] is the shell: mailboxes, timers, a network, disks, crashes and restarts. Time advances only when the test
//! advances it, and the test's [`Profile`] sets latencies, message loss and duplication. All runs are seeded and
//! reproducible.
//!
//! | fault | interface |
//! |---|---|
//! | messages are delayed, reordered, dropped, duplicated | [`Profile`], or manually on [`Cluster::wire`] |
//! | nodes are partitioned, in one or both directions, detected or not | [`Cluster::cut`], [`Cluster::link`] |
//! | a disk is slow, or answers only on command | [`Profile::disk`], [`Disk::held`], [`Disk::slow`] |
//! | writes of a role that has ended are still in flight | [`Disk::delay`] |
//! | messages over connections are duplicated | [`Cluster::repeat`] |
//! | a disk is full | [`Disk::full`], [`Disk::reclaims`], [`Cluster::refuse_newest`] |
//! | a process crashes, and some of its unfinished writes are durable | [`Cluster::crash`] |
//! | the events within a node are reordered | [`Cluster::scramble`] |
//! | clocks differ | [`Node::skew_micros`] |
//!
//! Events of interest are kept as [`TraceEvent`]s. [`transcript`] runs files of commands with their expected output;
//! [`verbs`] has the commands of all clusters. The events and effects of every instance can be recorded and replayed
//! ([`Recording`]).
//!
//! The crate knows no protocol. A disk holds a [`Store`]; [`memory`] is the one of Quorate's roles.

use quorate_core::bugs::{Bug, Bugs};
use quorate_permit::Permit;

pub mod cluster;
pub mod disk;
pub mod memory;
pub mod node;
pub mod protocol;
pub mod recording;
pub mod seeds;
pub mod trace;
pub mod transcript;
pub mod verbs;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Profile};
pub use disk::{Crash, Disk, Store};
pub use node::Node;
pub use protocol::{Action, Address, Clock, Envelope, Hosted, Input, Protocol, Rng, rng_from_seed};
pub use recording::Recording;
pub use trace::{Loss, TraceEvent};

/// A value after encoding and decoding it as on the wire.
///
/// # Panics
/// If it cannot be encoded or decoded.
pub fn encoded<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = postcard::to_stdvec(value).expect("messages can be encoded");
    postcard::from_bytes(&bytes).expect("and decoded")
}

/// Deliberate bugs.
pub fn bugs(bugs: impl IntoIterator<Item = Bug>) -> Bugs {
    Bugs::deliberate(bugs, Permit::for_tests())
}
