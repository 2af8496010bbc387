//! A request for many keys: the results so far.
//!
//! Each key is read or written by its own operation, with its own level, read repair, and forwarding if the own disk is
//! full. The keys share one request and one response, and few messages, since all messages of a turn to a node are sent
//! in one envelope ([`crate::outgoing`]).

use quorate_core::error::Error;
use quorate_protocol::api::{Entry, MAX_MANY_BYTES, Response, Written};

use crate::operation::RequestDetails;

/// The result of each key, in order; `None` while it is pending.
type PerKey<T> = Vec<Option<Result<T, Error>>>;

/// A request for many keys in progress.
///
/// Invariants: `missing` results are `None`; `bytes` is about the size of the entries among the others, and at most
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
    /// Puts of this many keys.
    pub(super) fn puts(details: RequestDetails, keys: usize) -> Self {
        Many::new(details, Results::Written(vec![None; keys]), keys)
    }

    /// Gets of this many keys.
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

    /// Records the result of the key at this index, once.
    pub(super) fn take(&mut self, place: usize, result: Result<Response, Error>) {
        let result = self.bounded(result);
        let before = match &mut self.results {
            Results::Written(results) => {
                let written = result.and_then(|response| match response {
                    Response::Written(written) => Ok(written),
                    // From the node to which the put was forwarded.
                    other => Err(Error::OutcomeUnknown {
                        acked: 0,
                        required: self.details.required,
                        reason: Some(format!(
                            "unexpected response type of {} bytes to a forwarded put",
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

    /// The result, or an error instead if it would make the response too large.
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

    /// Whether every key has a result.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The request's details and the response.
    pub(super) fn finish(self) -> (RequestDetails, Result<Response, Error>) {
        let answer = match self.results {
            Results::Written(results) => combine(results).map(Response::WrittenMany),
            Results::Entries(results) => combine(results).map(Response::Entries),
        };
        (self.details, answer)
    }
}

/// All results. An error that all keys share becomes the error of the request, so that its client retries on another node
/// as it would for a single key.
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
