//! Random numbers, all derived from the seed.

use std::time::Duration;

use quorate_core::contract::Rng;
use rand_core::{Rng as _, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A seeded random source. Each part of the world has its own ([`SimRng::named`]), so that a change of what one part draws
/// does not affect the others.
#[derive(Clone, Debug)]
pub struct SimRng {
    rng: Rng,
}

impl SimRng {
    /// The source called `name` of the run with this seed.
    pub fn named(seed: u64, name: &str) -> Self {
        SimRng {
            rng: Rng::seed_from_u64(xxh3_64_with_seed(name.as_bytes(), seed)),
        }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias is below bound / 2^64, which is negligible.
        ((u128::from(self.rng.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A number from 0 to 1, exclusive.
    pub fn fraction(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration from `least` to `most`.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX - 1);
        least + Duration::from_micros(self.below(span + 1))
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// A random delay: usually between `least` and `most`, sometimes much longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    /// The minimum.
    pub least: Duration,
    /// The usual maximum.
    pub most: Duration,
    /// The probability of a spike, from 0 to 1.
    pub spikes: f64,
    /// The maximum of a spike.
    pub spike: Duration,
}

impl Delay {
    /// Uniform between these two, without spikes.
    pub const fn uniform(least: Duration, most: Duration) -> Self {
        Delay {
            least,
            most,
            spikes: 0.0,
            spike: Duration::ZERO,
        }
    }

    /// One sample.
    pub fn sample(&self, rng: &mut SimRng) -> Duration {
        if self.spikes > 0.0 && rng.chance(self.spikes) {
            rng.between(self.most, self.spike.max(self.most))
        } else {
            rng.between(self.least, self.most)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_seed_give_the_same_numbers() {
        let draw = |seed, name| {
            let mut rng = SimRng::named(seed, name);
            (0..8).map(|_| rng.number()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, "network"), draw(1, "network"));
        assert_ne!(draw(1, "network"), draw(2, "network"));
        assert_ne!(draw(1, "network"), draw(1, "disk"));
    }

    #[test]
    fn numbers_are_within_bounds() {
        let mut rng = SimRng::named(7, "bounds");
        let delay = Delay {
            least: Duration::from_micros(10),
            most: Duration::from_micros(20),
            spikes: 0.5,
            spike: Duration::from_micros(90),
        };
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            let sample = delay.sample(&mut rng);
            assert!(sample >= delay.least && sample <= delay.spike, "{sample:?}");
        }
        assert_eq!(rng.below(0), 0);
        let mut items = [1, 2, 3, 4, 5];
        rng.shuffle(&mut items);
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4, 5]);
    }
}
