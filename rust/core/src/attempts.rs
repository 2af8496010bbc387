//! The attempts at one operation, and what the final error may claim: definite or unknown, never false.
//!
//! A client retries, and so does each node on the way to the one that can execute a request. A definite error
//! answers one *attempt*. As the answer to the *operation* it would be false if another attempt was executed,
//! or may yet be. So each component that makes attempts tracks them in [`Attempts`], and every final error
//! passes [`Attempts::final_error`]: once an attempt was sent and its outcome is unknown, no definite error is
//! returned.
//!
//! An attempt has a number, which its answer carries. Without it, a duplicated or late answer could be taken
//! for the answer to another attempt at the same node.

use crate::error::Error;

/// What is known about the attempts at one operation.
///
/// Invariant: [`in_doubt`](Attempts::in_doubt) from the sending of an attempt until it is known that it was
/// not executed and will not be, or what the outcome of the whole operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attempts {
    /// The number of the latest attempt; 0 before the first.
    latest: u16,
    /// The latest was sent and has no answer.
    open: bool,
    /// Whether the outcome of an attempt is unknown.
    lost: bool,
}

impl Attempts {
    /// Starts an attempt: returns its number. A pending one is given up.
    pub fn begin(&mut self) -> u16 {
        self.give_up();
        self.open = true;
        self.latest = self.latest.saturating_add(1);
        self.latest
    }

    /// The number of attempts.
    pub fn count(self) -> u16 {
        self.latest
    }

    /// Whether no number is left for another attempt.
    pub fn are_exhausted(self) -> bool {
        self.latest == u16::MAX
    }

    /// Whether this is the pending attempt.
    pub fn is_open(self, number: u16) -> bool {
        self.open && self.latest == number
    }

    /// The pending attempt was not executed and will not be.
    pub fn rejected(&mut self) {
        self.open = false;
    }

    /// The pending attempt may have been executed, or may yet be: its outcome stays unknown.
    pub fn give_up(&mut self) {
        self.lost |= std::mem::take(&mut self.open);
    }

    /// The pending attempt failed with an error.
    pub fn failed(&mut self, error: &Error) {
        match error.is_definite() {
            true => self.rejected(),
            false => self.give_up(),
        }
    }

    /// The outcome of the operation is known, whichever attempt was executed.
    pub fn resolved(&mut self) {
        (self.open, self.lost) = (false, false);
    }

    /// Whether an attempt may have been executed, or may yet be.
    pub fn in_doubt(self) -> bool {
        self.open || self.lost
    }

    /// The final error of the operation: a definite one becomes unknown while an attempt is in doubt.
    /// `required` is the number of members or replicas that a write needs.
    #[must_use]
    pub fn final_error(self, error: Error, required: u8) -> Error {
        if !self.in_doubt() || !error.is_definite() {
            return error;
        }
        Error::OutcomeUnknown {
            acked: 0,
            required,
            reason: Some(format!(
                "an earlier attempt has an unknown outcome, and a later one failed: {error}"
            )),
        }
    }
}

/// The id of an attempt on the wire: the operation's, below 2^48, with the number of the attempt.
pub fn name(operation: u64, number: u16) -> u64 {
    assert!(
        operation >> 48 == 0,
        "operation {operation} has too high a number"
    );
    operation << 16 | u64::from(number)
}

/// The operation and the number of the attempt with this id.
pub fn parse(name: u64) -> (u64, u16) {
    (name >> 16, name as u16)
}

/// The first operation id: random, so that answers to requests from before a crash do not match.
pub fn first_operation(random: u64) -> u64 {
    random >> 17
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Error {
        Error::StorageFull("nothing was written".to_owned())
    }

    fn unknown() -> Error {
        Error::OutcomeUnknown {
            acked: 1,
            required: 2,
            reason: None,
        }
    }

    fn is_unknown(attempts: Attempts) -> bool {
        let word = attempts.final_error(refused(), 2);
        let text = word.to_string();
        match word {
            Error::OutcomeUnknown { required: 2, .. } => {
                assert!(text.contains(&refused().to_string()), "{text}");
                true
            }
            word => {
                assert_eq!(word, refused());
                false
            }
        }
    }

    #[test]
    fn a_definite_error_is_returned_only_when_no_attempt_is_in_doubt() {
        let mut attempts = Attempts::default();
        assert!(!is_unknown(attempts), "nothing was sent");
        attempts.begin();
        assert!(is_unknown(attempts), "it is pending");
        attempts.failed(&refused());
        assert!(!is_unknown(attempts), "it was declined");
        attempts.begin();
        attempts.failed(&unknown());
        assert!(is_unknown(attempts));
        attempts.begin();
        attempts.rejected();
        assert!(is_unknown(attempts), "the one before may have been executed");
        attempts.resolved();
        assert!(!is_unknown(attempts));
    }

    #[test]
    fn an_attempt_that_is_replaced_is_in_doubt() {
        let mut attempts = Attempts::default();
        let first = attempts.begin();
        let second = attempts.begin();
        assert!(!attempts.is_open(first) && attempts.is_open(second));
        attempts.rejected();
        assert!(is_unknown(attempts));
        assert_eq!(attempts.count(), 2);
    }

    #[test]
    fn unknown_errors_are_returned_unchanged() {
        let mut attempts = Attempts::default();
        attempts.begin();
        assert_eq!(attempts.final_error(unknown(), 3), unknown());
        let expired = Error::SessionExpired("it has expired".to_owned());
        assert_eq!(attempts.final_error(expired.clone(), 3), expired);
    }

    #[test]
    fn names_hold_an_operation_and_a_number() {
        let highest = first_operation(u64::MAX) + 1;
        for operation in [1, 77, highest] {
            for number in [1, u16::MAX] {
                assert_eq!(parse(name(operation, number)), (operation, number));
            }
        }
    }
}
