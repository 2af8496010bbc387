//! The words of the network: who talks, how well that goes, and what is seen of it.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::rng::Delay;

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// A node of the cluster.
    Node(NodeId),
    /// A simulated client.
    Client(u32),
}

/// A session, numbered in the order of dialling and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Who of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The one that opened the session.
    Dialler,
    /// The one that was dialled.
    Listener,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// How a path treats what is sent along it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// How long bytes travel.
    pub delay: Delay,
    /// How often a packet is lost and sent again, from 0 to 1.
    pub loss: f64,
    /// How fast it takes bytes.
    pub bytes_per_second: u64,
    /// Whether nothing gets through.
    pub blocked: bool,
}

impl Default for Conditions {
    /// A quiet datacenter: 50 to 300 microseconds, a gigabit.
    fn default() -> Self {
        Conditions {
            delay: Delay::uniform(Duration::from_micros(50), Duration::from_micros(300)),
            loss: 0.0,
            bytes_per_second: 125_000_000,
            blocked: false,
        }
    }
}

/// What happens to single messages above the links, against all that TCP promises: roles must not mind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MessageFaults {
    /// How often a message vanishes, from 0 to 1.
    pub loss: f64,
    /// How often it comes twice.
    pub repetition: f64,
    /// How often it is held back, for up to `held_for`, so that later ones overtake it.
    pub reordering: f64,
    /// The longest that a message is held back.
    pub held_for: Duration,
}

/// What a host does with packets that no program of it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// The program runs: knocks reach it.
    Serving,
    /// The program is gone, the host is not: it answers strangers with the end of their session.
    Refusing,
    /// The host is gone, too, or cut off by its power: it answers nothing.
    Silent,
}

/// What a program sees of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrival {
    /// Somebody dials: [`Network::accept`] or [`Network::end`] the session, or leave it unanswered.
    Knock {
        /// Who.
        from: Endpoint,
    },
    /// The dialled side accepted.
    Opened,
    /// Bytes, in order.
    Bytes(Bytes),
    /// The oldest bytes not yet reported so have left the sender.
    Out,
    /// The session is over.
    Ended,
}
