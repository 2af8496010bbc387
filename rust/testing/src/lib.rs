//! An in-memory cluster with a manual clock, for tests of protocols that are pure state machines.
//!
//! A test says what a protocol is with a [`Protocol`]: how an instance of a role is given an event, and what its effects mean.
//! A [`Cluster`] does the rest, as a shell would: mailboxes, timers, a network, disks, crashes and restarts. Nothing moves by
//! itself: time passes when the test says so, and what takes how long, gets lost or comes twice is the test's
//! [`Profile`]. Everything is seeded, so that a run can be repeated exactly.
//!
//! | what can go wrong | how |
//! |---|---|
//! | messages are late, overtake each other, get lost, come twice | [`Profile`], or by hand on [`Cluster::wire`] |
//! | nodes cannot reach each other, in one direction or both, noticed or not | [`Cluster::cut`], [`Cluster::link`] |
//! | a disk is slow, or answers only when it is told to | [`Profile::disk`], [`Disk::held`], [`Disk::slow`] |
//! | a role has ended, and what it asked for is still on its way | [`Disk::delay`] |
//! | what goes over connections comes twice | [`Cluster::repeat`] |
//! | a disk is full | [`Disk::full`], [`Disk::reclaims`], [`Cluster::refuse_newest`] |
//! | a process ends, and some of what it asked its disk for is there | [`Cluster::crash`] |
//! | the events within a node come in another order | [`Cluster::scramble`] |
//! | clocks differ | [`Node::skew_micros`] |
//!
//! What a person would want to see is kept as a [`TraceEvent`]. [`transcript`] plays files of commands with the output that
//! they must have; [`verbs`] has the commands that all clusters understand. What every instance was given and did can be
//! recorded and replayed ([`Recording`]).
//!
//! The crate knows no protocol. What a disk stores is a [`Store`]; [`memory`] is the one that Quorate's roles ask.

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

/// A value after its way through the encoding of the wire.
///
/// # Panics
/// It cannot be encoded, or not decoded again.
pub fn encoded<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = postcard::to_stdvec(value).expect("messages can be encoded");
    postcard::from_bytes(&bytes).expect("and decoded")
}

/// Deliberate mistakes.
pub fn bugs(bugs: impl IntoIterator<Item = Bug>) -> Bugs {
    Bugs::deliberate(bugs, Permit::for_tests())
}
