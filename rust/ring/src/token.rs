//! Tokens and the ranges between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of tokens: 2^64.
pub(super) const SPACE: u128 = 1 << 64;

/// A position on the ring: the hash of a partition key, or the end of an arc that a node owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The tokens after `start` up to and including `end`, clockwise. Where `end` is not after `start` the range passes
/// the top of the ring; where both are equal it is the whole ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenRange {
    /// Not part of the range.
    pub start: Token,
    /// The range's last token.
    pub end: Token,
}

impl TokenRange {
    /// Whether `token` is in the range.
    pub fn contains(self, token: Token) -> bool {
        if self.start < self.end {
            self.start < token && token <= self.end
        } else {
            token > self.start || token <= self.end
        }
    }

    /// The number of tokens in the range: 1 to 2^64.
    pub fn size(self) -> u128 {
        match self.end.0.wrapping_sub(self.start.0) {
            0 => SPACE,
            size => u128::from(size),
        }
    }

    /// The range's part of the whole ring, above 0 and up to 1.
    pub fn share(self) -> f64 {
        share(self.size())
    }
}

impl fmt::Display for TokenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.start, self.end)
    }
}

impl fmt::Debug for TokenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A number of tokens as a part of the whole ring.
pub(super) fn share(tokens: u128) -> f64 {
    tokens as f64 / SPACE as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> TokenRange {
        TokenRange {
            start: Token(start),
            end: Token(end),
        }
    }

    #[test]
    fn a_range_excludes_its_start_and_includes_its_end() {
        let plain = range(10, 20);
        assert!(!plain.contains(Token(10)) && plain.contains(Token(11)));
        assert!(plain.contains(Token(20)) && !plain.contains(Token(21)));
        assert_eq!(plain.size(), 10);
    }

    #[test]
    fn a_range_wraps_past_the_top() {
        let wrapping = range(u64::MAX - 1, 1);
        assert_eq!(wrapping.size(), 3);
        for inside in [u64::MAX, 0, 1] {
            assert!(wrapping.contains(Token(inside)), "{inside}");
        }
        for outside in [u64::MAX - 1, 2, 1 << 63] {
            assert!(!wrapping.contains(Token(outside)), "{outside}");
        }
    }

    #[test]
    fn equal_ends_are_the_whole_ring() {
        let whole = range(7, 7);
        assert_eq!((whole.size(), whole.share()), (SPACE, 1.0));
        assert!(
            [0, 6, 7, 8, u64::MAX]
                .into_iter()
                .all(|t| whole.contains(Token(t)))
        );
    }
}
