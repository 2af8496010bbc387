//! Many independent calls: a bounded number in flight, outcomes in the order of the requests.

use std::collections::VecDeque;

use quorate_core::error::Error;
use quorate_protocol::api::Request;

use super::{Call, Client};
use crate::core::{CallOptions, Outcome};

/// Maximum number of calls in flight.
const IN_FLIGHT: usize = 256;

/// A request, or the error of an invalid one, and its options.
type BatchCall = (Result<Request, Error>, CallOptions);

impl Client {
    /// Executes all of these calls and converts each outcome. Timeouts begin when a request is sent. Dropping the
    /// future drops the requests that were not sent yet.
    pub async fn call_each<T>(
        &self,
        calls: Vec<BatchCall>,
        answer: impl Fn(Outcome) -> Result<T, Error>,
    ) -> Vec<Result<T, Error>> {
        let mut calls = calls.into_iter();
        let start = |(request, options): BatchCall| request.map(|request| self.call(request, options));
        let mut started: VecDeque<Result<Call, Error>> = calls.by_ref().take(IN_FLIGHT).map(start).collect();
        let mut answers = Vec::with_capacity(started.len() + calls.len());
        while let Some(call) = started.pop_front() {
            answers.push(match call {
                Ok(call) => answer(call.await),
                Err(error) => Err(error),
            });
            started.extend(calls.next().map(start));
        }
        answers
    }
}
