//! The verdict on a whole history.

use std::collections::BTreeMap;
use std::fmt;

use crate::budget::{Budget, Meter};
use crate::explain::Part;
use crate::history::{Malformed, Operation};
use crate::register::{Register, Step};
use crate::search::{Answer, Search};

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A single copy explains the history.
    Linearizable,
    /// No single copy explains it.
    NotLinearizable(Violation),
    /// The budget did not suffice for these keys; the others are linearizable.
    Unknown {
        /// In their order.
        keys: Vec<Vec<u8>>,
    },
}

/// Contradictory operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key; if there are several, the first.
    pub key: Vec<u8>,
    /// The operations, in the order of the history: no order of them explains their outcomes, whatever else
    /// happened. As few as the budget permitted to find.
    pub window: Vec<Operation>,
    /// If given, this holds whatever happened before this time. Otherwise the key is assumed to have no
    /// initial value.
    pub since: Option<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no order of these operations on \"{}\" explains their outcomes",
            self.key.escape_ascii()
        )?;

        if let Some(since) = self.since {
            write!(f, ", whatever happened before {since}")?;
        }
        write!(f, ":")?;
        self.window
            .iter()
            .try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}

/// Checks a history; its operations may be in any order.
///
/// # Errors
/// [`Malformed`] if an operation is inconsistent.
pub fn check(history: &[Operation], budget: &Budget) -> Result<Verdict, Malformed> {
    let mut keys: BTreeMap<&[u8], Vec<Step<'_>>> = BTreeMap::new();
    for (position, operation) in history.iter().enumerate() {
        if let Some(step) = operation.step(position)? {
            keys.entry(&operation.key).or_default().push(step);
        }
    }
    let mut meter = Meter::new(budget);
    let mut unknown = Vec::new();
    for (key, steps) in keys {
        match Search::new(&steps).run(Register::NEW, &mut meter) {
            Answer::Explained => {}
            Answer::OutOfBudget => unknown.push(key.to_vec()),
            Answer::Unexplained => {
                let part = Part::smallest(&steps, &mut Meter::new(budget));
                let operation = |position: usize| history[position].clone();
                return Ok(Verdict::NotLinearizable(Violation {
                    key: key.to_vec(),
                    window: part.positions().into_iter().map(operation).collect(),
                    since: part.since(),
                }));
            }
        }
    }
    Ok(if unknown.is_empty() {
        Verdict::Linearizable
    } else {
        Verdict::Unknown { keys: unknown }
    })
}
