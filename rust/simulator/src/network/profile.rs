//! The network profile: conditions of paths, and faults of single messages.

use std::time::Duration;

use crate::rng::Delay;

/// The conditions of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// The delay.
    pub delay: Delay,
    /// The probability of packet loss, from 0 to 1.
    pub loss: f64,
    /// The bandwidth.
    pub bytes_per_second: u64,
    /// Whether the path is blocked.
    pub blocked: bool,
}

impl Default for Conditions {
    /// A healthy datacenter: 50 to 300 microseconds, one gigabit per second.
    fn default() -> Self {
        Conditions {
            delay: Delay::uniform(Duration::from_micros(50), Duration::from_micros(300)),
            loss: 0.0,
            bytes_per_second: 125_000_000,
            blocked: false,
        }
    }
}

/// Faults of single messages above the links, beyond those of TCP, which roles must tolerate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MessageFaults {
    /// The probability that a message is dropped, from 0 to 1.
    pub loss: f64,
    /// The probability that it is duplicated.
    pub repetition: f64,
    /// The probability that it is delayed, by up to `held_for`, so that later ones overtake it.
    pub reordering: f64,
    /// The maximum delay of a message.
    pub held_for: Duration,
}
