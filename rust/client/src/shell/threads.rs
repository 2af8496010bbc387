//! Threads that block on a response: one of them drives, the others wait for it.
//!
//! The one that drives has the *lead*. It drives until its own response has arrived, and then passes the lead to a
//! waiting thread (the leader/followers pattern of Schmidt et al.). A single thread always leads, and no other thread
//! wakes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::driver::{Driver, Shared};
use super::turns::{Sleeper, Turns};

/// Drives once, unless this thread was woken.
fn drive(sleeper: &Sleeper, shared: &Shared, timeout: Option<Duration>) {
    let begin = || {
        sleeper.polls.store(true, Ordering::SeqCst);
        // A wake-up from now on interrupts it.
        !sleeper.woken.load(Ordering::SeqCst)
    };
    let end = |interrupted| {
        sleeper.polls.store(false, Ordering::SeqCst);
        if interrupted {
            sleeper.poller.take_interruption();
        }
    };
    shared.turn_with(timeout, begin, end);
}

impl Driver {
    /// Blocks this thread until the future is ready or `patience` has passed; drives meanwhile. The future may only
    /// wait for calls of this driver's client.
    pub fn block_on<F: Future>(
        &self,
        mut future: Pin<&mut F>,
        patience: Option<Duration>,
    ) -> Option<F::Output> {
        let shared = &*self.0;
        let until = patience.map(|patience| Instant::now() + patience);
        let Some(poller) = shared.poller() else {
            // A client that is closed leaves nothing to wait for.
            return block_on(future, patience);
        };
        let sleeper = Arc::new(Sleeper {
            thread: thread::current(),
            woken: AtomicBool::new(false),
            polls: AtomicBool::new(false),
            poller,
        });
        let waker = Waker::from(Arc::clone(&sleeper));
        let mut context = Context::from_waker(&waker);
        let mut leave = Leave {
            turns: &shared.turns,
            sleeper: &sleeper,
            leads: false,
        };
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            while !sleeper.woken.swap(false, Ordering::SeqCst) {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    return None;
                }
                if leave.leads || shared.turns.try_lead(&sleeper) {
                    leave.leads = true;
                    drive(&sleeper, shared, left);
                } else {
                    // Requests of this thread are sent without waiting for the driving thread.
                    shared.flush();
                    match left {
                        Some(left) => thread::park_timeout(left),
                        None => thread::park(),
                    }
                }
            }
        }
    }
}

/// Blocks this thread until the future is ready or `patience` has passed. Another thread has to make it ready.
pub fn block_on<F: Future>(mut future: Pin<&mut F>, patience: Option<Duration>) -> Option<F::Output> {
    struct Parked(Thread);
    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let until = patience.map(|patience| Instant::now() + patience);
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(left) if left.is_zero() => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// Leaves when dropped, also on a panic of the future.
struct Leave<'a> {
    turns: &'a Turns,
    sleeper: &'a Arc<Sleeper>,
    leads: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.turns.leave(self.sleeper, self.leads);
    }
}
