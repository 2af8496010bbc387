//! How well the network carries what is sent: the conditions of a path, and faults of single messages.

use std::time::Duration;

use crate::rng::Delay;

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
