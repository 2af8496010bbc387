//! Many independent calls: a bounded number in flight, outcomes in the order of the requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::error::Error;
use quorate_protocol::api::Request;
use tokio::task::JoinSet;

use super::{Client, finished, in_task};
use crate::core::{CallOptions, Outcome};

/// How many of them are in flight at once.
const IN_FLIGHT: usize = 64;

/// A request, unless it is invalid already, and how to carry it out.
type BatchCall = (Result<Request, Error>, CallOptions);

impl Client {
    /// Carries out all of these calls, in tasks of the runtime, and turns each outcome into an answer there. Timeouts begin
    /// when a request is sent. Dropping the future drops the requests that are not sent yet.
    pub async fn call_each<T: Send + 'static>(
        &self,
        calls: Vec<BatchCall>,
        answer: fn(Outcome) -> Result<T, Error>,
    ) -> Vec<Result<T, Error>> {
        in_task(run(self.clone(), calls, answer)).await
    }
}

async fn run<T: Send + 'static>(
    client: Client,
    calls: Vec<BatchCall>,
    answer: fn(Outcome) -> Result<T, Error>,
) -> Vec<Result<T, Error>> {
    let count = calls.len();
    let calls = Arc::new(calls);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..count.min(IN_FLIGHT) {
        let (client, calls, next) = (client.clone(), Arc::clone(&calls), Arc::clone(&next));
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
    let mut answers: Vec<Option<Result<T, Error>>> = (0..count).map(|_| None).collect();
    while let Some(done) = workers.join_next().await {
        for (index, answered) in finished(done) {
            answers[index] = Some(answered);
        }
    }
    // Every index was taken by a worker, and every worker has finished.
    answers.into_iter().flatten().collect()
}
