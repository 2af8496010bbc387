//! Many concurrent calls: a bounded number in flight, results in the order of the requests.

use std::collections::VecDeque;

use quorate_core::error::Error;
use quorate_protocol::api::{Request, Response};

use super::{Call, Client, Reply, reply};
use crate::core::CallOptions;

/// Maximum number of calls of one pipeline in flight.
const IN_FLIGHT: usize = 256;

/// Executes all requests. Their timeouts begin when they are sent.
pub(super) async fn run<T>(
    client: &Client,
    requests: impl IntoIterator<Item = Request>,
    options: CallOptions,
    decode: impl Fn(Response) -> Option<T>,
) -> Vec<Result<Reply<T>, Error>> {
    let mut requests = requests.into_iter();
    let mut calls: VecDeque<Call> = requests
        .by_ref()
        .take(IN_FLIGHT)
        .map(|request| client.call(request, options))
        .collect();
    let mut answers = Vec::new();
    while let Some(call) = calls.pop_front() {
        answers.push(reply(call.await, &decode));
        calls.extend(requests.next().map(|request| client.call(request, options)));
    }
    answers
}
