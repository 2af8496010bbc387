//! A generator of numbers that picks keys, mixes and arrivals without a lock or a system call.

/// xorshift64*: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Xorshift(u64);

impl Xorshift {
    pub(super) fn seeded(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring numbers, and 0 gives zeros forever.
        Xorshift((seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03).max(1))
    }

    /// Another one in each run, and for each worker of a run.
    pub(super) fn of_worker(number: u64) -> Self {
        Xorshift::seeded(getrandom::u64().unwrap_or(0) ^ number)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 to, exclusively, this one.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: the low bits of the remainder would be the weaker ones.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A fraction from 0 to, exclusively, 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let numbers = |seed| {
            let mut random = Xorshift::seeded(seed);
            (0..4).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!(numbers(u64::MAX).iter().any(|number| *number != 0));
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_fill_them() {
        let mut random = Xorshift::seeded(1);
        let mut seen = [0_u32; 5];
        for _ in 0..5_000 {
            seen[random.below(5) as usize] += 1;
            let fraction = random.fraction();
            assert!((0.0..1.0).contains(&fraction));
        }
        assert!(seen.iter().all(|count| (900..1_100).contains(count)), "{seen:?}");
    }
}
