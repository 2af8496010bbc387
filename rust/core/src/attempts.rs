//! The attempts at one operation, and what may be said when it has ended: definite or unknown, never a lie.
//!
//! A client retries, and so does each node on the way to the one that can execute a request. A definite error answers one
//! *attempt*. As the answer to the *operation* it is a lie if another attempt was executed, or may yet be. So everyone who
//! makes attempts keeps [`Attempts`], and every final error passes [`Attempts::last_word`]: once an attempt has left and
//! nothing certain is known about it, no definite error gets through.
//!
//! An attempt has a number, which its answer carries. Without it, an answer that is repeated or late could be taken for the
//! answer to another attempt at the same node.

use crate::error::Error;

/// What is known of the attempts at one operation.
///
/// Invariant: [`in_doubt`](Attempts::in_doubt) from the moment at which an attempt leaves, until it is known that it has not
/// been executed and will not be, or what became of the operation as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attempts {
    /// The number of the latest; 0 before the first.
    latest: u16,
    /// The latest has left and is not answered.
    open: bool,
    /// Of an attempt it is not known whether it was executed, or will be.
    lost: bool,
}

impl Attempts {
    /// Another attempt leaves now: gives its number. One that is open is given up.
    pub fn begin(&mut self) -> u16 {
        self.give_up();
        self.open = true;
        self.latest = self.latest.saturating_add(1);
        self.latest
    }

    /// How many there were.
    pub fn count(self) -> u16 {
        self.latest
    }

    /// Whether there is no number for another attempt.
    pub fn are_used_up(self) -> bool {
        self.latest == u16::MAX
    }

    /// Whether this is the attempt that waits for its answer.
    pub fn is_open(self, number: u16) -> bool {
        self.open && self.latest == number
    }

    /// The open attempt was not executed and will not be.
    pub fn declined(&mut self) {
        self.open = false;
    }

    /// The open attempt may have been executed, or may yet be: nothing certain is known about it any more.
    pub fn give_up(&mut self) {
        self.lost |= std::mem::take(&mut self.open);
    }

    /// The open attempt was answered with an error.
    pub fn failed(&mut self, error: &Error) {
        match error.is_definite() {
            true => self.declined(),
            false => self.give_up(),
        }
    }

    /// It is known what became of the operation, whichever attempt it was.
    pub fn settled(&mut self) {
        (self.open, self.lost) = (false, false);
    }

    /// Whether an attempt may have been executed, or may yet be.
    pub fn in_doubt(self) -> bool {
        self.open || self.lost
    }

    /// What an error that ends the operation says about it: a definite one says nothing definite while there is doubt.
    /// `required` members or replicas must have what is written.
    #[must_use]
    pub fn last_word(self, error: Error, required: u8) -> Error {
        if !self.in_doubt() || !error.is_definite() {
            return error;
        }
        Error::OutcomeUnknown {
            acked: 0,
            required,
            reason: Some(format!(
                "an attempt was not answered, and a later one failed: {error}"
            )),
        }
    }
}

/// The name of an attempt on the wire: that of the operation, below 2^48, with the number of the attempt.
pub fn name(operation: u64, number: u16) -> u64 {
    assert!(
        operation >> 48 == 0,
        "operation {operation} has too high a number"
    );
    operation << 16 | u64::from(number)
}

/// The operation and the number of the attempt with this name.
pub fn parse(name: u64) -> (u64, u16) {
    (name >> 16, name as u16)
}

/// Where the names of operations begin: anywhere, so that an answer to what was there before a crash is not taken for another's.
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
        let word = attempts.last_word(refused(), 2);
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
    fn a_definite_error_gets_through_only_when_no_attempt_is_in_doubt() {
        let mut attempts = Attempts::default();
        assert!(!is_unknown(attempts), "nothing has left");
        attempts.begin();
        assert!(is_unknown(attempts), "it is under way");
        attempts.failed(&refused());
        assert!(!is_unknown(attempts), "it was declined");
        attempts.begin();
        attempts.failed(&unknown());
        assert!(is_unknown(attempts));
        attempts.begin();
        attempts.declined();
        assert!(is_unknown(attempts), "the one before may have been executed");
        attempts.settled();
        assert!(!is_unknown(attempts));
    }

    #[test]
    fn an_attempt_that_is_replaced_is_in_doubt() {
        let mut attempts = Attempts::default();
        let first = attempts.begin();
        let second = attempts.begin();
        assert!(!attempts.is_open(first) && attempts.is_open(second));
        attempts.declined();
        assert!(is_unknown(attempts));
        assert_eq!(attempts.count(), 2);
    }

    #[test]
    fn what_is_unknown_stays_as_it_was_said() {
        let mut attempts = Attempts::default();
        attempts.begin();
        assert_eq!(attempts.last_word(unknown(), 3), unknown());
        let expired = Error::SessionExpired("it has expired".to_owned());
        assert_eq!(attempts.last_word(expired.clone(), 3), expired);
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
