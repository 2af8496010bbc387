//! Group commit, first half: requests of all roles are gathered before they go to the store.
//!
//! A commit costs about the same whether it holds one request or a hundred, and the store begins one as soon as it is
//! asked. So requests are gathered until everything that can run now has run, and are handed over together: what roles
//! ask for because of the same batch of messages then shares one commit. On an idle node nothing waits for anything but
//! one look at the sockets. The second half, the batching of what arrives while a commit is under way, is
//! [`quorate_storage::queue`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_storage::StateWrite;
use quorate_storage::queue::Request;
use tokio::sync::Notify;

use crate::directory::Owner;
use crate::shell::CommitPort;

/// A [`CommitPort`] that gathers what is submitted during one round of the runtime, and then hands it to another.
///
/// Order is kept. After [`Gather::close`] every request is handed over at once.
pub struct Gather {
    shared: Arc<Shared>,
}

struct Shared {
    to: Box<dyn CommitPort>,
    requests: Mutex<Vec<Request>>,
    some: Notify,
    closed: AtomicBool,
}

impl Gather {
    /// Gathers for `to`. Must be called within the runtime that runs the roles.
    pub fn new(to: impl CommitPort + 'static) -> Self {
        let shared = Arc::new(Shared {
            to: Box::new(to),
            requests: Mutex::default(),
            some: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let gathering = Arc::clone(&shared);
        tokio::spawn(async move {
            while !gathering.closed.load(Ordering::Acquire) {
                gathering.some.notified().await;
                // To the end of the queue of tasks, behind a look at the sockets.
                tokio::task::yield_now().await;
                gathering.hand_over();
            }
        });
        Gather { shared }
    }

    /// Hands over what has been gathered, and gathers no more.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.some.notify_one();
        self.shared.hand_over();
    }
}

impl Shared {
    fn hand_over(&self) {
        // The lock is held meanwhile, lest a later request overtake an earlier one.
        let mut gathered = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if !gathered.is_empty() {
            self.to.submit(std::mem::take(&mut gathered));
        }
    }
}

impl CommitPort for Gather {
    fn submit(&self, requests: Vec<Request>) {
        let mut gathered = self
            .shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = gathered.is_empty();
        gathered.extend(requests);
        drop(gathered);
        if self.shared.closed.load(Ordering::Acquire) {
            self.shared.hand_over();
        } else if first {
            self.shared.some.notify_one();
        }
    }

    /// Costs no commit: there is nothing to gather.
    fn derive(&self, owner: Owner, token: u64, writes: Vec<StateWrite>) {
        self.shared.to.derive(owner, token, writes);
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

        fn derive(&self, _owner: Owner, _token: u64, _writes: Vec<StateWrite>) {}
    }

    fn gather() -> (Gather, Receiver<Vec<u64>>) {
        let (sender, receiver) = channel();
        (Gather::new(Store(Mutex::new(sender))), receiver)
    }

    async fn handed_over(store: &Receiver<Vec<u64>>) -> Vec<u64> {
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
            .expect("it is handed over")
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
    async fn what_is_asked_in_one_round_is_handed_over_together_and_in_order() {
        let (gather, store) = gather();
        gather.submit(vec![request(1), request(2)]);
        gather.submit(vec![request(3)]);
        assert_eq!(handed_over(&store).await, [1, 2, 3]);
        gather.submit(vec![request(4)]);
        assert_eq!(handed_over(&store).await, [4]);
    }

    #[tokio::test]
    async fn nothing_is_kept_after_it_is_closed() {
        let (gather, store) = gather();
        gather.submit(vec![request(1)]);
        gather.close();
        assert_eq!(store.recv_timeout(Duration::from_secs(5)), Ok(vec![1]));
        gather.submit(vec![request(2)]);
        assert_eq!(store.recv_timeout(Duration::from_secs(5)), Ok(vec![2]));
    }
}
