//! Fault injection into what this node sends.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::ids::NodeId;
use quorate_protocol::faults::Impairment;

/// The faults on the path to a peer. The default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fault {
    /// Blocks all bytes and new connections.
    pub block: bool,
    /// The percentage of messages that are dropped, 0.0 to 100.0. Heartbeats are not dropped, as TCP would retransmit them.
    pub loss_percent: f64,
    /// The added delay.
    pub delay: Duration,
    /// The most additional random delay; the order is kept.
    pub jitter: Duration,
}

impl From<Impairment> for Fault {
    fn from(impairment: Impairment) -> Self {
        Fault {
            block: impairment.block,
            loss_percent: f64::from(impairment.loss_ppm) / 1e4,
            delay: Duration::from_micros(impairment.delay_micros),
            jitter: Duration::from_micros(impairment.jitter_micros),
        }
    }
}

/// Faults by destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultRules(BTreeMap<NodeId, Fault>);

impl FaultRules {
    /// Blocks the path to `to`.
    #[must_use]
    pub fn block(self, to: NodeId) -> Self {
        let fault = Fault {
            block: true,
            ..self.get(to)
        };
        self.with(to, fault)
    }

    /// Sets the faults on the path to `to`.
    #[must_use]
    pub fn with(mut self, to: NodeId, fault: Fault) -> Self {
        self.0.insert(to, fault);
        self
    }

    /// The faults on the path to `to`.
    pub fn get(&self, to: NodeId) -> Fault {
        self.0.get(&to).copied().unwrap_or_default()
    }
}

/// The faults on the path to one peer. Checked often, and cheap to check when there are none.
#[derive(Debug, Default)]
pub(super) struct PeerFaults {
    any: AtomicBool,
    fault: Mutex<Fault>,
    dice: Dice,
}

impl PeerFaults {
    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock().expect("fault") = fault;
        self.any.store(fault != Fault::default(), Ordering::Release);
    }

    fn get(&self) -> Option<Fault> {
        self.any
            .load(Ordering::Acquire)
            .then(|| *self.fault.lock().expect("fault"))
    }

    pub(super) fn blocked(&self) -> bool {
        self.get().is_some_and(|fault| fault.block)
    }

    /// The delay of the next bytes.
    pub(super) fn delay(&self) -> Duration {
        self.get().map_or(Duration::ZERO, |fault| {
            fault.delay + fault.jitter.mul_f64(self.dice.roll())
        })
    }

    /// The probability that a message is dropped, if any.
    pub(super) fn loss(&self) -> Option<f64> {
        self.get()
            .map(|fault| fault.loss_percent / 100.0)
            .filter(|loss| *loss > 0.0)
    }

    /// Whether the next message is dropped.
    pub(super) fn drops(&self, probability: f64) -> bool {
        self.dice.roll() < probability
    }
}

/// Random numbers from 0 to 1 of low quality (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Default for Dice {
    fn default() -> Self {
        Dice(AtomicU64::new(getrandom::u64().unwrap_or(1)))
    }
}

impl Dice {
    pub(super) fn roll(&self) -> f64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_per_peer_and_are_combined() {
        let slow = Fault {
            delay: Duration::from_millis(5),
            ..Fault::default()
        };
        let rules = FaultRules::default().with(NodeId(2), slow).block(NodeId(2));
        assert!(rules.get(NodeId(2)).block && rules.get(NodeId(2)).delay == slow.delay);
        assert_eq!(rules.get(NodeId(3)), Fault::default());
    }

    #[test]
    fn effects_convert_to_faults() {
        let fault = Fault::from(Impairment {
            block: true,
            loss_ppm: 25_000,
            delay_micros: 1_500,
            jitter_micros: 20,
        });
        let wanted = Fault {
            block: true,
            loss_percent: 2.5,
            delay: Duration::from_micros(1_500),
            jitter: Duration::from_micros(20),
        };
        assert_eq!(fault, wanted);
        assert_eq!(Fault::from(Impairment::default()), Fault::default());
    }

    #[test]
    fn messages_are_dropped_with_the_given_probability() {
        let faults = PeerFaults::default();
        assert_eq!(
            (faults.loss(), faults.blocked(), faults.delay()),
            (None, false, Duration::ZERO)
        );
        faults.set(Fault {
            loss_percent: 25.0,
            ..Fault::default()
        });
        let probability = faults.loss().unwrap();
        let lost = (0..10_000).filter(|_| faults.drops(probability)).count();
        assert!((2_200..2_800).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn jitter_adds_to_delay() {
        let faults = PeerFaults::default();
        faults.set(Fault {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..Fault::default()
        });
        for _ in 0..1000 {
            let delay = faults.delay();
            assert!(delay >= Duration::from_millis(10) && delay <= Duration::from_millis(15));
        }
    }
}
