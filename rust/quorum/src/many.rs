//! A request for many keys, as its coordinator has it: what became of each key so far.
//!
//! Each key is read or written by an exchange of its own, with all that belongs to one: levels, read repair, another
//! coordinator where the own disk is full. What the keys share is how they come and go: one request, one answer, and, since what
//! a turn has for a node goes in one envelope ([`crate::outgoing`]), few messages.

use quorate_core::error::Error;
use quorate_protocol::api::{Entry, MAX_MANY_BYTES, Response, Written};

use crate::operation::RequestDetails;

/// The result of each key, in their order; `None` until there is one.
type PerKey<T> = Vec<Option<Result<T, Error>>>;

/// A request for many keys in progress.
///
/// Invariants: `open` of the results are missing; `bytes` is about what the entries among the others have, and at most
/// [`MAX_MANY_BYTES`] unless there is only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Many {
    pub(super) details: RequestDetails,
    results: Results,
    missing: usize,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Results {
    Written(PerKey<Written>),
    Entries(PerKey<Entry>),
}

impl Many {
    /// Puts of so many keys.
    pub(super) fn puts(details: RequestDetails, keys: usize) -> Self {
        Many::new(details, Results::Written(vec![None; keys]), keys)
    }

    /// Gets of so many keys.
    pub(super) fn gets(details: RequestDetails, keys: usize) -> Self {
        Many::new(details, Results::Entries(vec![None; keys]), keys)
    }

    fn new(details: RequestDetails, results: Results, missing: usize) -> Self {
        Many {
            details,
            results,
            missing,
            bytes: 0,
        }
    }

    /// Takes the result of the key in this place, once.
    pub(super) fn take(&mut self, place: usize, result: Result<Response, Error>) {
        let result = self.bounded(result);
        let before = match &mut self.results {
            Results::Written(results) => {
                let written = result.and_then(|response| match response {
                    Response::Written(written) => Ok(written),
                    // Of the node that the put was handed to.
                    other => Err(Error::OutcomeUnknown {
                        acked: 0,
                        required: self.details.required,
                        reason: Some(format!(
                            "it was answered with {} bytes of another kind",
                            other.bytes()
                        )),
                    }),
                });
                results[place].replace(written).is_some()
            }
            Results::Entries(results) => {
                let entry = result.map(|response| match response {
                    Response::Entry(entry) => entry,
                    other => panic!("a read ended with {other:?}"),
                });
                results[place].replace(entry).is_some()
            }
        };
        assert!(!before, "a key has one result");
        self.missing -= 1;
    }

    /// The result, or an error in its place if it makes the answer too large.
    fn bounded(&mut self, result: Result<Response, Error>) -> Result<Response, Error> {
        let bytes = match &result {
            Ok(response @ Response::Entry(_)) => response.bytes(),
            _ => 0,
        };
        if self.bytes > 0 && self.bytes + bytes > MAX_MANY_BYTES {
            return Err(Error::LimitExceeded {
                what: "the bytes of the entries of many keys".to_owned(),
                size: (self.bytes + bytes) as u64,
                limit: MAX_MANY_BYTES as u64,
                remedy: "read this key by itself".to_owned(),
            });
        }
        self.bytes += bytes;
        result
    }

    /// Whether every key has its result.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Who has asked, and the answer.
    pub(super) fn finish(self) -> (RequestDetails, Result<Response, Error>) {
        let answer = match self.results {
            Results::Written(results) => combine(results).map(Response::WrittenMany),
            Results::Entries(results) => combine(results).map(Response::Entries),
        };
        (self.details, answer)
    }
}

/// All results. An error that they have in common is that of the request: it is as one for a single key then, and its client may
/// ask another node.
fn combine<T>(results: PerKey<T>) -> Result<Vec<Result<T, Error>>, Error> {
    let results: Vec<Result<T, Error>> = results.into_iter().flatten().collect();
    if let Some(Err(first)) = results.first() {
        let common = |result: &Result<T, Error>| result.as_ref().is_err_and(|error| error == first);
        if results.iter().all(common) {
            return Err(first.clone());
        }
    }
    Ok(results)
}

#[cfg(test)]
#[path = "many_tests.rs"]
mod tests;
