//! Checks histories: is what the clients of a store observed consistent with a single copy that executes one
//! operation at a time?
//!
//! # Linearizability
//! A history is **linearizable** (Herlihy and Wing, *Linearizability: A Correctness Condition for Concurrent Objects*, 1990)
//! if every operation can be given one moment between its invocation and its return, such that executing them in the order
//! of these moments gives exactly the outcomes that the clients saw. An operation whose outcome is unknown may take effect
//! at any time after its invocation, or never.
//!
//! # The algorithm
//! Linearizability is local: a history is linearizable if the part of each key is. So keys are checked one by
//! one, as Porcupine and Knossos do (Horn and Kroening, *Faster Linearizability Checking via
//! P-Compositionality*, 2015). For one key the search is Wing and Gong's (*Testing and Verifying Concurrent
//! Objects*, 1993): choose an operation that nothing precedes, execute it, continue with the rest, backtrack
//! on failure. It never visits the same pair of (set of executed operations, state) twice, which is Lowe's
//! improvement (*Testing for Linearizability*, 2017). The file `search` has more optimizations. The problem
//! is NP-complete all the same, so there is a [`Budget`]: searches take long for keys with very many unknown
//! outcomes.
//!
//! A verdict of [`Verdict::NotLinearizable`] includes a small window of operations without an explanation,
//! usually two to four, whatever the length of the history (`explain`).
//!
//! # Usage
//! ```
//! use quorate_checker::{Action, Budget, Operation, Outcome, Verdict, check};
//!
//! let operation = |process, action, outcome, invoked, returned| Operation {
//!     process,
//!     key: b"x".to_vec(),
//!     action,
//!     outcome,
//!     invoked,
//!     returned: Some(returned),
//! };
//! let done = |version| Outcome::Done { version: Some(version) };
//! let found = |value: &[u8]| Outcome::Found { value: value.to_vec(), version: None };
//! let history = [
//!     operation(1, Action::put("old"), done(1), 0, 10),
//!     operation(1, Action::put("new"), done(2), 20, 30),
//!     operation(2, Action::Get, found(b"new"), 40, 50),
//!     operation(3, Action::Get, found(b"old"), 60, 70),
//! ];
//! let verdict = check(&history, &Budget::default())?;
//! assert!(matches!(verdict, Verdict::NotLinearizable(violation) if violation.window.len() == 3));
//! # Ok::<(), quorate_checker::Malformed>(())
//! ```
//!
//! # Where things are
//! | file | what |
//! |---|---|
//! | `history` | recorded operations |
//! | `register` | the single copy: a key's value and version |
//! | `search` | finds an order that explains the outcomes of one key |
//! | `explain` | minimizes a violation |
//! | `verdict` | [`check`]: all keys |
//!
//! # Not included
//! Operations on several keys at once. Record an atomic batch as one operation per key; linearizability of
//! each key is then checked, atomicity of the batch is not.

mod budget;
mod explain;
pub mod figure3;
mod history;
mod register;
mod search;
mod verdict;

pub use budget::Budget;
pub use history::{Action, Malformed, Operation, Outcome};
pub use register::Condition;
pub use verdict::{Verdict, Violation, check};

#[cfg(test)]
mod known_tests;
#[cfg(test)]
mod random_tests;
