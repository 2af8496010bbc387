//! Which of the blocking threads drives: one has the *lead*, the others are its followers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::thread::Thread;

use super::poller::Poller;

/// The lead and its followers.
#[derive(Default)]
pub(super) struct Turns(Mutex<Lead>);

#[derive(Default)]
struct Lead {
    taken: bool,
    followers: VecDeque<Arc<Sleeper>>,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Lead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lead, or queues for it.
    pub(super) fn try_lead(&self, sleeper: &Arc<Sleeper>) -> bool {
        let mut lead = self.lock();
        lead.followers.retain(|follower| !Arc::ptr_eq(follower, sleeper));
        if lead.taken {
            lead.followers.push_back(Arc::clone(sleeper));
            return false;
        }
        lead.taken = true;
        true
    }

    /// Calls `act` if no thread leads, and keeps the lead from being taken meanwhile.
    pub(super) fn without_leader(&self, act: impl FnOnce()) {
        let lead = self.lock();
        if !lead.taken {
            act();
        }
    }

    /// Leaves, and releases the lead if this thread had it; a follower may have to drive now.
    pub(super) fn leave(&self, sleeper: &Arc<Sleeper>, leads: bool) {
        let mut lead = self.lock();
        lead.followers.retain(|follower| !Arc::ptr_eq(follower, sleeper));
        if leads {
            lead.taken = false;
        }
        if !lead.taken
            && let Some(next) = lead.followers.pop_front()
        {
            next.thread.unpark();
        }
    }
}

/// A waiting thread, either parked or polling the sockets.
pub(super) struct Sleeper {
    pub(super) thread: Thread,
    pub(super) woken: AtomicBool,
    /// Whether it polls the sockets.
    pub(super) polls: AtomicBool,
    pub(super) poller: Arc<Poller>,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if self.polls.load(Ordering::SeqCst) {
            self.poller.interrupt();
        } else {
            self.thread.unpark();
        }
    }
}
