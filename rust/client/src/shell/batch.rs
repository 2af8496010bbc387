//! Many concurrent calls: a bounded number in flight, outcomes in the order of the requests.

use std::collections::VecDeque;

use quorate_protocol::api::Request;

use super::{Call, Client};
use crate::core::{CallOptions, Outcome};

/// Maximum number of calls of one batch in flight.
const IN_FLIGHT: usize = 256;

impl Client {
    /// Executes all of these calls and converts each outcome. Timeouts begin when a request is sent. Dropping the
    /// future drops the requests that were not sent yet.
    pub async fn call_each<T>(
        &self,
        calls: impl IntoIterator<Item = (Request, CallOptions)>,
        convert: impl Fn(Outcome) -> T,
    ) -> Vec<T> {
        let mut calls = calls.into_iter();
        let start = |(request, options)| self.call(request, options);
        let mut started: VecDeque<Call> = calls.by_ref().take(IN_FLIGHT).map(start).collect();
        let mut results = Vec::with_capacity(started.len());
        while let Some(call) = started.pop_front() {
            results.push(convert(call.await));
            started.extend(calls.next().map(start));
        }
        results
    }
}
