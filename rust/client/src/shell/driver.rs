//! The driver owns the core and all sockets of a client: calls and bytes in, effects out.
//!
//! A driver has no thread of its own. **The caller that waits for a response drives**: it writes pending bytes, waits
//! for the sockets, and handles what arrives, also for other callers. There are three kinds of callers:
//! * blocking threads ([`super::threads`]): one of them waits for the sockets, the others for it;
//! * event loops other than Tokio's, such as asyncio's ([`super::event_loop`]): they poll the driver's descriptor;
//! * a Tokio task ([`super::task`]).
//!
//! So a response to a blocking thread costs no switch to another thread, and a burst of calls costs one system call per
//! connection: bytes are buffered until the next turn of the driver.
//!
//! While no caller waits, nothing is driven. Bytes that arrived meanwhile are handled before anything else: a
//! connection that was closed is not used, and a node whose response is in the socket is not suspected.
//!
//! Locks: `state` is held while events are handled, never while waiting. Wakers are called under it, and do not call back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_protocol::api::Request;
use tokio::sync::{oneshot, watch};

use super::poller::{Poller, Ready};
use super::spans::SpanRing;
use super::state::State;
use super::turns::Turns;
use crate::core::{CallOptions, ClientCore, ClientEvent, Outcome};

/// A client's core and its sockets; see the module's documentation.
#[derive(Clone)]
pub struct Driver(pub(super) Arc<Shared>);

pub(super) struct Shared {
    state: Mutex<State>,
    /// Gone once the client is closed, and its descriptors with it.
    poller: Mutex<Option<Arc<Poller>>>,
    pub(super) turns: Turns,
    closed: watch::Sender<bool>,
}

impl Driver {
    /// A driver that has started to dial. `opened` receives whether the cluster was reached, `timeout_error` after `timeout`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the system has no file descriptors left.
    pub(super) fn new(
        core: ClientCore,
        rng: Rng,
        opened: oneshot::Sender<Result<(), Error>>,
        timeout: Duration,
        timeout_error: Error,
        spans: Arc<SpanRing>,
    ) -> Result<Driver, Error> {
        let poller = Poller::new().map_err(|error| {
            Error::Overloaded(format!(
                "the client gets no file descriptors ({error}): close files, or raise the limit (ulimit -n)"
            ))
        })?;
        let poller = Arc::new(poller);
        let mut state = State::new(core, rng, Arc::clone(&poller), opened, spans);
        state.open_until = Some((state.now().instant + timeout, timeout_error));
        state.set_timer();
        state.handle(ClientEvent::Start);
        Ok(Driver(Arc::new(Shared {
            state: Mutex::new(state),
            poller: Mutex::new(Some(poller)),
            turns: Turns::default(),
            closed: watch::Sender::new(false),
        })))
    }

    /// Whether the client is closed: there is nothing to drive any more.
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }
}

impl Shared {
    /// Submits a request; the outcome is sent on the channel, which is dropped if the driver ends first.
    pub(super) fn call(&self, request: Request, options: CallOptions, answer: oneshot::Sender<Outcome>) {
        let mut state = self.lock();
        state.last_op += 1;
        let op = state.last_op;
        state.calls.insert(op, answer);
        let clean = state.dirty.is_empty();
        state.handle(ClientEvent::Submit { op, request, options });
        if clean && !state.dirty.is_empty() {
            state.wake_task();
        }
    }

    /// Closes the client.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.end();
        state.wake_task();
        self.publish_closed(&state);
    }

    /// No handle is left: a Tokio task, if there is one, drives until nothing is in flight.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        if state.task.is_none() || state.core.in_flight() == 0 {
            state.end();
        }
        state.wake_task();
        self.publish_closed(&state);
    }

    /// Waits until the client is closed.
    pub(super) async fn ended(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as this.
        let _ended = closed.wait_for(|closed| *closed).await;
    }

    /// The poller, whose descriptor is readable while there is something to drive. `None` once the client is closed.
    pub(super) fn poller(&self) -> Option<Arc<Poller>> {
        self.poller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes buffered bytes.
    pub(super) fn flush(&self) {
        self.lock().flush();
    }

    /// Sets the task that is woken when there is something to send.
    pub(super) fn set_task(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            state.task = Some(waker.clone());
        }
    }

    /// Writes buffered bytes, waits, and handles ready sources. Returns their number.
    pub(super) fn turn(&self, timeout: Option<Duration>) -> usize {
        let end = |interrupted| {
            if interrupted {
                // It came too late for its thread. If it stayed, the descriptor would stay readable.
                self.turns
                    .without_leader(|| self.poller().iter().for_each(|poller| poller.take_interruption()));
            }
        };
        self.turn_with(timeout, || true, end)
    }

    /// [`Shared::turn`] of a thread that others may interrupt: it waits only if `begin` returns true, and `end`
    /// receives whether it was interrupted.
    pub(super) fn turn_with(
        &self,
        timeout: Option<Duration>,
        begin: impl FnOnce() -> bool,
        end: impl FnOnce(bool),
    ) -> usize {
        self.flush();
        let mut sockets = Vec::new();
        let (mut timer, mut notified, mut interrupted) = (false, false, false);
        let mut found = 0;
        if let Some(poller) = self.poller()
            && begin()
        {
            found = poller.wait(timeout, |ready| match ready {
                Ready::Socket { connection } => sockets.push(connection),
                Ready::Timer => timer = true,
                Ready::Notified => notified = true,
                Ready::Interrupted => interrupted = true,
            });
        }
        end(interrupted);
        if found == 0 {
            return 0;
        }
        let mut state = self.lock();
        for connection in sockets {
            state.ready(connection);
        }
        if notified {
            state.take_resolved();
        }
        if timer {
            state.timer();
        }
        state.flush();
        if state.abandoned && state.core.in_flight() == 0 {
            state.end();
        }
        self.publish_closed(&state);
        found
    }

    fn publish_closed(&self, state: &State) {
        if state.closed && !*self.closed.borrow() {
            self.closed.send_replace(true);
            let poller = self.poller.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Wake the waiting thread.
            poller.iter().for_each(|poller| poller.interrupt());
        }
    }

    /// A thread that panicked while holding the lock has left the core in an inconsistent state: it is not used any more.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state: MutexGuard<'_, State> = poisoned.into_inner();
            self.state.clear_poison();
            state.mark_broken();
            state
        })
    }
}
