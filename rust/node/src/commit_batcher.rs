//! Group commit, first half: requests of all roles are batched before they go to the store.
//!
//! A commit costs about the same for one request as for a hundred, and the store begins a commit as soon as it has a
//! request. So requests are held until every runnable task has run, and are submitted together: the requests that roles
//! make in response to one batch of messages share a commit. While each round brings more of them, the next one is
//! awaited too, a few times: the messages of several coordinators arrive shortly after one another. A node without load
//! waits for two polls of its sockets.
//! The second half, the batching of requests that arrive during a commit, is [`quorate_storage::queue`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_storage::StateWrite;
use quorate_storage::queue::Request;
use tokio::sync::Notify;

use crate::role_registry::Owner;
use crate::shell::CommitPort;

/// The maximum number of rounds of the runtime that a request is held. More rounds hold up the requests of a busy node
/// without a larger batch to show for it.
const ROUNDS: usize = 4;

/// A [`CommitPort`] that batches what is submitted during a few rounds of the runtime and passes it to another port.
///
/// Order is kept. After [`CommitBatcher::close`] every request is passed on immediately.
pub struct CommitBatcher {
    shared: Arc<Shared>,
}

struct Shared {
    next: Box<dyn CommitPort>,
    requests: Mutex<Vec<Request>>,
    some: Notify,
    closed: AtomicBool,
}

impl CommitBatcher {
    /// Batches for `to`. Must be called within the runtime that runs the roles.
    pub fn new(to: impl CommitPort + 'static) -> Self {
        let shared = Arc::new(Shared {
            next: Box::new(to),
            requests: Mutex::default(),
            some: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let batching = Arc::clone(&shared);
        tokio::spawn(async move {
            while !batching.closed.load(Ordering::Acquire) {
                batching.some.notified().await;
                let mut before = 0;
                for _ in 0..ROUNDS {
                    // To the end of the task queue, after a poll of the sockets.
                    tokio::task::yield_now().await;
                    let pending = batching.pending().len();
                    if pending == before {
                        break;
                    }
                    before = pending;
                }
                batching.submit_pending();
            }
        });
        CommitBatcher { shared }
    }

    /// Submits the pending requests and stops batching.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.some.notify_one();
        self.shared.submit_pending();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit_pending(&self) {
        // The lock is held, so that a later request cannot overtake an earlier one.
        let mut pending = self.pending();
        if !pending.is_empty() {
            self.next.submit(std::mem::take(&mut pending));
        }
    }
}

impl CommitPort for CommitBatcher {
    fn submit(&self, requests: Vec<Request>) {
        let mut pending = self.shared.pending();
        let first = pending.is_empty();
        pending.extend(requests);
        drop(pending);
        if self.shared.closed.load(Ordering::Acquire) {
            self.shared.submit_pending();
        } else if first {
            self.shared.some.notify_one();
        }
    }

    /// Costs no commit: there is nothing to batch.
    fn apply_rows(&self, owner: Owner, token: u64, writes: Vec<StateWrite>) {
        self.shared.next.apply_rows(owner, token, writes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use quorate_core::store::Priority;

    use super::*;

    struct Store(Mutex<Sender<Vec<u64>>>);

    impl CommitPort for Store {
        fn submit(&self, requests: Vec<Request>) {
            let tokens = requests.iter().map(|request| request.token).collect();
            self.0.lock().unwrap().send(tokens).unwrap();
        }

        fn apply_rows(&self, _owner: Owner, _token: u64, _writes: Vec<StateWrite>) {}
    }

    fn batcher() -> (CommitBatcher, Receiver<Vec<u64>>) {
        let (sender, receiver) = channel();
        (CommitBatcher::new(Store(Mutex::new(sender))), receiver)
    }

    async fn submitted(store: &Receiver<Vec<u64>>) -> Vec<u64> {
        let wait = async {
            loop {
                match store.try_recv() {
                    Ok(tokens) => return tokens,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let patience = Duration::from_secs(5);
        tokio::time::timeout(patience, wait)
            .await
            .expect("requests are submitted in time")
    }

    fn request(token: u64) -> Request {
        Request {
            owner: 1,
            token,
            priority: Priority::Normal,
            ops: Vec::new(),
        }
    }

    #[tokio::test]
    async fn requests_of_one_round_are_submitted_together_and_in_order() {
        let (batcher, store) = batcher();
        batcher.submit(vec![request(1), request(2)]);
        batcher.submit(vec![request(3)]);
        assert_eq!(submitted(&store).await, [1, 2, 3]);
        batcher.submit(vec![request(4)]);
        assert_eq!(submitted(&store).await, [4]);
    }

    #[tokio::test]
    async fn requests_of_the_next_rounds_are_submitted_with_the_first_but_only_so_many() {
        let (batcher, store) = batcher();
        let mut requests = Vec::new();
        for token in 1.. {
            batcher.submit(vec![request(token)]);
            tokio::task::yield_now().await;
            if let Ok(tokens) = store.try_recv() {
                requests = tokens;
                break;
            }
            assert!(token < 1_000, "nothing is submitted while more requests arrive");
        }
        assert_eq!(requests.len(), ROUNDS + 1, "one for each round, and the first");
    }

    #[tokio::test]
    async fn requests_are_submitted_immediately_after_close() {
        let (batcher, store) = batcher();
        batcher.submit(vec![request(1)]);
        batcher.close();
        assert_eq!(store.recv_timeout(Duration::from_secs(5)), Ok(vec![1]));
        batcher.submit(vec![request(2)]);
        assert_eq!(store.recv_timeout(Duration::from_secs(5)), Ok(vec![2]));
    }
}
