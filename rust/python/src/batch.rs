//! Many operations at a time: a bounded number in flight, answers in the order of the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::PyResult;
use quorate_client::core::unanswered;
use quorate_client::{CallOptions, Outcome};
use quorate_protocol::api::Request;
use quorate_protocol::error::Error;
use tokio::task::JoinSet;

use crate::answers::Each;

/// How many operations of a batch are in flight at once.
const IN_FLIGHT: usize = 64;

/// A request, unless something was wrong with it already, and how it is to be carried out.
pub(crate) type Call = (Result<Request, Error>, CallOptions);

/// Carries out all calls.
pub(crate) async fn run<T: Send + 'static>(
    client: quorate_client::Client,
    calls: Vec<Call>,
    answer: fn(Outcome) -> Result<T, Error>,
) -> PyResult<Vec<Each<T>>> {
    let count = calls.len();
    let calls = Arc::new(calls);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..count.min(IN_FLIGHT) {
        let (client, calls, next) = (client.clone(), calls.clone(), next.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((request, options)) = calls.get(index) else {
                    return done;
                };
                let answered = match request {
                    Ok(request) => answer(client.call(request.clone(), *options).await),
                    Err(error) => Err(error.clone()),
                };
                done.push((index, answered));
            }
        });
    }
    let mut answers: Vec<Option<Each<T>>> = (0..count).map(|_| None).collect();
    while let Some(done) = workers.join_next().await {
        for (index, answered) in done.unwrap_or_default() {
            answers[index] = Some(Each(answered));
        }
    }
    let lost = |(request, _): &Call| match request {
        Ok(request) => Each(Err(unanswered(request, "the client's task was cancelled"))),
        Err(error) => Each(Err(error.clone())),
    };
    Ok(answers
        .into_iter()
        .zip(calls.iter())
        .map(|(answer, call)| answer.unwrap_or_else(|| lost(call)))
        .collect())
}
