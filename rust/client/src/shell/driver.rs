//! What owns the core and all sockets of a client: calls and bytes in, effects out.
//!
//! A driver has no thread of its own. **Whoever waits for an answer drives**: it writes what there is to send, waits for the
//! sockets, and handles what has come, also for others. Three kinds of callers do:
//! * threads that block ([`super::threads`]): one of them waits for the sockets, the others for it;
//! * event loops of another kind, such as asyncio's ([`super::event_loop`]): they watch the driver's descriptor;
//! * a task of Tokio ([`super::task`]).
//!
//! So an answer to a thread that blocks costs no switch to another thread, and a burst of calls costs one system call per
//! connection: what is to be sent gathers until somebody drives.
//!
//! While nobody waits, nothing is driven. What came meanwhile is handled before anything else: a connection that was
//! closed is not used, and a node whose answer lies in the socket is not suspected.
//!
//! Locks: `state` is held while events are handled, never while waiting. Wakers are called under it, and call nothing back.

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
    /// A driver that has begun to dial. `opened` gets to know whether the cluster was reached, `late` after `timeout`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when the system gives no descriptors to wait on.
    pub(super) fn new(
        core: ClientCore,
        rng: Rng,
        opened: oneshot::Sender<Result<(), Error>>,
        timeout: Duration,
        late: Error,
        spans: Arc<SpanRing>,
    ) -> Result<Driver, Error> {
        let poller = Poller::new().map_err(|error| {
            Error::Overloaded(format!(
                "the client gets no file descriptors ({error}): close files, or raise the limit (ulimit -n)"
            ))
        })?;
        let poller = Arc::new(poller);
        let mut state = State::new(core, rng, Arc::clone(&poller), opened, spans);
        state.open_until = Some((state.now().instant + timeout, late));
        state.set_timer();
        state.tell(ClientEvent::Start);
        Ok(Driver(Arc::new(Shared {
            state: Mutex::new(state),
            poller: Mutex::new(Some(poller)),
            turns: Turns::default(),
            closed: watch::Sender::new(false),
        })))
    }

    /// Whether the client is closed: nothing is driven any more.
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }
}

impl Shared {
    /// Submits a request; the answer comes on the channel, which is dropped if the driver ends before.
    pub(super) fn call(&self, request: Request, options: CallOptions, answer: oneshot::Sender<Outcome>) {
        let mut state = self.lock();
        state.last_op += 1;
        let op = state.last_op;
        state.calls.insert(op, answer);
        let clean = state.dirty.is_empty();
        state.tell(ClientEvent::Submit { op, request, options });
        if clean && !state.dirty.is_empty() {
            state.wake_task();
        }
    }

    /// Ends the client.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.end();
        state.wake_task();
        self.note_end(&state);
    }

    /// No handle is left: the task of Tokio goes on until nothing is in flight, where there is one.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        if state.task.is_none() || state.core.in_flight() == 0 {
            state.end();
        }
        state.wake_task();
        self.note_end(&state);
    }

    /// Waits until the client is closed.
    pub(super) async fn ended(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as this.
        let _ended = closed.wait_for(|closed| *closed).await;
    }

    /// What to wait on; its descriptor is readable while there is something to drive. None once the client is closed.
    pub(super) fn poller(&self) -> Option<Arc<Poller>> {
        self.poller.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what has gathered.
    pub(super) fn flush(&self) {
        self.lock().flush();
    }

    /// The task that is woken when there is something to send.
    pub(super) fn set_task(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            state.task = Some(waker.clone());
        }
    }

    /// Writes what has gathered, waits, and handles what has come. Returns how much that was.
    pub(super) fn turn(&self, timeout: Option<Duration>) -> usize {
        let end = |interrupted| {
            if interrupted {
                // It came too late for the thread that it was for. Left there, it would keep the descriptor readable.
                self.turns
                    .without_leader(|| self.poller().iter().for_each(|poller| poller.take_interruption()));
            }
        };
        self.turn_with(timeout, || true, end)
    }

    /// [`Shared::turn`] of a thread that others may interrupt: it waits only if `begin` says so, and then `end` gets to know
    /// whether it was interrupted.
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
        self.note_end(&state);
        found
    }

    fn note_end(&self, state: &State) {
        if state.closed && !*self.closed.borrow() {
            self.closed.send_replace(true);
            let poller = self.poller.lock().unwrap_or_else(PoisonError::into_inner).take();
            // A thread that waits there looks up.
            poller.iter().for_each(|poller| poller.interrupt());
        }
    }

    /// A thread that panicked here has left the core in the middle of something: it is of no use any more.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state: MutexGuard<'_, State> = poisoned.into_inner();
            self.state.clear_poison();
            state.give_up();
            state
        })
    }
}
