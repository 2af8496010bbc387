//! Operations of clients and their outcomes.

use std::fmt;

use crate::register::{Condition, Effect, Step};

/// The action of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the value.
    Get,
    /// Set the value, if the condition holds.
    Put {
        /// The new value. Histories whose puts all have different values are checked fastest and detect most.
        value: Vec<u8>,
        /// The precondition.
        condition: Condition,
    },
    /// Remove the value, if the condition holds.
    Delete {
        /// The precondition.
        condition: Condition,
    },
}

impl Action {
    /// An unconditional put.
    pub fn put(value: impl Into<Vec<u8>>) -> Self {
        Action::Put {
            value: value.into(),
            condition: Condition::Any,
        }
    }

    /// An unconditional delete.
    pub fn delete() -> Self {
        Action::Delete {
            condition: Condition::Any,
        }
    }
}

/// The outcome that the client observed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A get found a value.
    Found {
        /// The value.
        value: Vec<u8>,
        /// Its version, if reported.
        version: Option<u64>,
    },
    /// A get found no value.
    Missing,
    /// A put or delete succeeded.
    Done {
        /// The version that it made, if reported. Versions of a key rise with every write.
        version: Option<u64>,
    },
    /// A put or delete failed: its condition did not hold.
    ConditionFailed {
        /// The key's version at that moment; `None` if it had no value.
        current: Option<u64>,
    },
    /// The operation definitely had no effect, and its outcome reveals nothing about the key.
    Failed,
    /// Unknown: a write may take effect at any time after its invocation, even after it returned, or never.
    Unknown,
}

/// One operation of one client on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The client. For display only: the order of a client's operations follows from their times.
    pub process: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The action.
    pub action: Action,
    /// The outcome.
    pub outcome: Outcome,
    /// The time of the invocation, on a clock that all clients share, in any unit.
    pub invoked: u64,
    /// The time of the return; `None` if never, with [`Outcome::Unknown`]. An operation precedes another if
    /// it returned *before* the other's invocation; with equal times they are concurrent.
    pub returned: Option<u64>,
}

/// A history that cannot be checked because an operation is inconsistent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {position} of the history ({operation}) {reason}")]
pub struct Malformed {
    /// Its position in the history, from 0.
    pub position: usize,
    /// The operation, in text form.
    pub operation: String,
    /// The problem and the remedy.
    pub reason: &'static str,
}

impl Operation {
    /// The operation's effect for the search; `None` if it reveals nothing.
    pub(crate) fn step(&self, position: usize) -> Result<Option<Step<'_>>, Malformed> {
        let malformed = |reason| Malformed {
            position,
            operation: self.to_string(),
            reason,
        };
        if self.returned.is_some_and(|returned| returned < self.invoked) {
            return Err(malformed(
                "returned before it was invoked: times must be of one clock",
            ));
        }
        if self.returned.is_none() && self.outcome != Outcome::Unknown {
            return Err(malformed(
                "has an outcome but never returned: give the time, or the outcome Unknown",
            ));
        }
        let write = match &self.action {
            Action::Get => None,
            Action::Put { value, condition } => Some((Some(value.as_slice()), *condition)),
            Action::Delete { condition } => Some((None, *condition)),
        };
        let effect = match (&self.outcome, write) {
            (Outcome::Failed, _) | (Outcome::Unknown, None) => return Ok(None),
            (Outcome::Found { value, version }, None) => Effect::Read {
                seen: Some((value, *version)),
            },
            (Outcome::Missing, None) => Effect::Read { seen: None },
            (Outcome::Found { .. } | Outcome::Missing, Some(_)) => {
                return Err(malformed("is a write with the outcome of a get: writes are Done"));
            }
            (Outcome::Done { .. } | Outcome::ConditionFailed { .. }, None) => {
                return Err(malformed(
                    "is a get with the outcome of a write: gets are Found or Missing",
                ));
            }
            (Outcome::Done { version }, Some((value, condition))) => Effect::Write {
                value,
                condition,
                version: *version,
            },
            (Outcome::ConditionFailed { .. }, Some((_, Condition::Any))) => {
                return Err(malformed("failed on its condition, but has none"));
            }
            (Outcome::ConditionFailed { current }, Some((_, condition))) => Effect::Refused {
                condition,
                current: *current,
            },
            (Outcome::Unknown, Some((value, condition))) => Effect::Write {
                value,
                condition,
                version: None,
            },
        };
        let unknown = self.outcome == Outcome::Unknown;
        Ok(Some(Step {
            position,
            invoked: self.invoked,
            returned: self.returned.filter(|_| !unknown),
            effect,
        }))
    }
}

/// `p1 put "v" if version 3 at 10..20: done, version 4`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{} ", self.process)?;
        let condition = match &self.action {
            Action::Get => {
                write!(f, "get")?;
                Condition::Any
            }
            Action::Put { value, condition } => {
                write!(f, "put \"{}\"", value.escape_ascii())?;
                *condition
            }
            Action::Delete { condition } => {
                write!(f, "delete")?;
                *condition
            }
        };
        match condition {
            Condition::Any => {}
            Condition::Absent => write!(f, " if absent")?,
            Condition::Version(version) => write!(f, " if version {version}")?,
        }
        write!(f, " at {}..", self.invoked)?;
        if let Some(returned) = self.returned {
            write!(f, "{returned}")?;
        }
        let version = |version: &Option<u64>| {
            version.map_or_else(String::new, |version| format!(", version {version}"))
        };
        match &self.outcome {
            Outcome::Found { value, version: of } => {
                write!(f, ": \"{}\"{}", value.escape_ascii(), version(of))
            }
            Outcome::Missing => write!(f, ": no value"),
            Outcome::Done { version: made } => write!(f, ": done{}", version(made)),
            Outcome::ConditionFailed {
                current: Some(current),
            } => write!(f, ": refused, the version is {current}"),
            Outcome::ConditionFailed { current: None } => write!(f, ": refused, there is no value"),
            Outcome::Failed => write!(f, ": failed"),
            Outcome::Unknown => write!(f, ": unknown"),
        }
    }
}
