//! Derived rows that are not flushed to the state yet, by owner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_core::store::StateWrite;

use crate::store::DerivedRows;

/// Derived rows that are durable in the state from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flushed {
    /// The owner.
    pub owner: u32,
    /// The owner's tokens, in order.
    pub tokens: Vec<u64>,
}

/// Derived rows that are not flushed yet.
pub struct Unflushed {
    rows: Arc<dyn DerivedRows>,
    /// Number of the run, owner, the owner's token.
    runs: Mutex<VecDeque<(u64, u32, u64)>>,
}

impl Unflushed {
    /// Tracks rows applied to `rows`.
    pub fn new(rows: Arc<dyn DerivedRows>) -> Self {
        Unflushed {
            rows,
            runs: Mutex::default(),
        }
    }

    /// Bytes of rows that are durable, or derived, but not yet applied.
    pub fn unapplied_bytes(&self) -> usize {
        self.rows.unapplied_bytes()
    }

    fn runs(&self) -> MutexGuard<'_, VecDeque<(u64, u32, u64)>> {
        self.runs.lock().expect("no holder of the runs panics")
    }

    /// Makes rows readable, under the owner's `token`.
    pub fn apply_rows(&self, owner: u32, token: u64, writes: Vec<StateWrite>) {
        // Under the lock, so that the runs are in order.
        let mut runs = self.runs();
        let number = self.rows.apply_rows(writes);
        runs.push_back((number, owner, token));
    }

    /// Removes the runs up to this one, which are flushed.
    pub fn take_flushed(&self, through: u64) -> Vec<Flushed> {
        let mut runs = self.runs();
        let mut flushed: Vec<Flushed> = Vec::new();
        while let Some((_, owner, token)) = runs.front().copied().filter(|(number, ..)| *number <= through) {
            runs.pop_front();
            match flushed.iter_mut().find(|one| one.owner == owner) {
                Some(one) => one.tokens.push(token),
                None => flushed.push(Flushed {
                    owner,
                    tokens: vec![token],
                }),
            }
        }
        flushed
    }
}
