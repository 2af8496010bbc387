//! Recent keys: deduplicates requests.

use std::collections::BTreeMap;

use crate::time::Instant;

/// Below this number of entries expired ones are not removed.
const SMALL: usize = 256;

/// Recent keys, each remembered until its time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dedup<K> {
    until: BTreeMap<K, Instant>,
    /// The number of entries that triggers the removal of expired ones. Doubles with what remains, so that
    /// removal costs little per entry.
    look_at: usize,
}

impl<K> Default for Dedup<K> {
    fn default() -> Self {
        Dedup {
            until: BTreeMap::new(),
            look_at: SMALL,
        }
    }
}

impl<K: Ord> Dedup<K> {
    /// Whether the key is not remembered. It is remembered from now on, until the given time.
    pub fn is_new(&mut self, key: K, until: Instant, now: Instant) -> bool {
        if self.until.get(&key).is_some_and(|until| *until > now) {
            return false;
        }
        self.until.insert(key, until);
        if self.until.len() >= self.look_at {
            self.until.retain(|_, until| *until > now);
            self.look_at = SMALL.max(2 * self.until.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_again_after_its_time() {
        let mut recent = Dedup::default();
        assert!(recent.is_new("a", Instant(10), Instant(0)));
        assert!(
            !recent.is_new("a", Instant(99), Instant(9)),
            "a repeated key does not extend its time"
        );
        assert!(recent.is_new("b", Instant(10), Instant(9)));
        assert!(recent.is_new("a", Instant(20), Instant(10)));
        assert!(!recent.is_new("a", Instant(20), Instant(11)));
    }

    #[test]
    fn expired_keys_are_removed() {
        let mut recent = Dedup::default();
        for time in 0..100_000 {
            assert!(recent.is_new(time, Instant(time + 1_000), Instant(time)));
        }
        assert!(recent.until.len() <= 2 * 1_000 + SMALL, "{}", recent.until.len());
    }
}
