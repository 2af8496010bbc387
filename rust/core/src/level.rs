//! Consistency levels: how many replicas must answer before an operation succeeds.
//!
//! With N replicas, a read that waits for R of them and a write that waited for W of them have at least one
//! replica in common exactly when R + W > N. That is the core of tunable consistency; the rest is about which
//! replica that is and what it knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A consistency level, by name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// One replica.
    One,
    /// Two replicas.
    Two,
    /// Three replicas.
    Three,
    /// A majority of the N replicas.
    Quorum,
    /// All N replicas.
    All,
    /// Exactly this many (the R or W of the Dynamo paper).
    Count(u8),
}

impl Level {
    /// The number of `replicas` that must answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the level requires none, or more than there are.
    pub fn required(self, replicas: u8) -> Result<u8, Error> {
        let required = match self {
            Level::One => 1,
            Level::Two => 2,
            Level::Three => 3,
            Level::Quorum => replicas / 2 + 1,
            Level::All => replicas,
            Level::Count(count) => count,
        };
        if required == 0 {
            return Err(Error::invalid(
                "consistency 0 waits for no replica: use 1 or more".to_owned(),
            ));
        }
        if required > replicas {
            return Err(Error::invalid(format!(
                "consistency {self} needs {required} replicas but the keyspace has {replicas}: lower the level or \
                 create the keyspace with more replicas"
            )));
        }
        Ok(required)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::One => f.write_str("ONE"),
            Level::Two => f.write_str("TWO"),
            Level::Three => f.write_str("THREE"),
            Level::Quorum => f.write_str("QUORUM"),
            Level::All => f.write_str("ALL"),
            Level::Count(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_uppercase().as_str() {
            "ONE" => Ok(Level::One),
            "TWO" => Ok(Level::Two),
            "THREE" => Ok(Level::Three),
            "QUORUM" => Ok(Level::Quorum),
            "ALL" => Ok(Level::All),
            number => number.parse().map(Level::Count).map_err(|_| {
                Error::invalid(format!(
                    "consistency {text:?}: use ONE, TWO, THREE, QUORUM, ALL or a number of replicas"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_majority_and_two_of_them_overlap() {
        for n in 1..=9u8 {
            let quorum = Level::Quorum.required(n).unwrap();
            assert!(2 * quorum > n && 2 * (quorum - 1) <= n, "n={n} quorum={quorum}");
        }
    }

    #[test]
    fn levels_beyond_the_replicas_are_rejected() {
        assert_eq!(Level::All.required(3).unwrap(), 3);
        assert!(Level::Three.required(2).is_err());
        assert!(Level::Count(0).required(3).is_err());
        assert!(Level::Count(4).required(3).is_err());
    }

    #[test]
    fn names_round_trip() {
        for level in [
            Level::One,
            Level::Two,
            Level::Three,
            Level::Quorum,
            Level::All,
            Level::Count(5),
        ] {
            assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        }
        assert!("most".parse::<Level>().is_err());
    }
}
