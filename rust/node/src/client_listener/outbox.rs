//! The state that a connection shares with the roles that answer its requests: requests in flight, and bytes to send.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use quorate_core::error::Error;
use quorate_protocol::admission::{InFlight, Need, Rejection};
use quorate_protocol::api::{MAX_CLIENT_FRAME, RequestFrame, Response, ResponseFrame};
use quorate_protocol::frame;
use quorate_protocol::role::ClientRef;
use tokio::sync::Notify;

use super::dispatch::Router;
use super::limits::{Limits, Load};

#[derive(Default)]
struct State {
    in_flight: InFlight,
    /// Responses that the connection's task has not taken yet.
    buffer: BytesMut,
    /// Bytes that it has taken and not written yet.
    taken: usize,
    /// Why the connection must be closed, or was closed.
    ended: Option<&'static str>,
}

/// The outbox of one connection.
///
/// Invariant: a request is in `in_flight`, and counted in [`Load`], from its admission to its response; even if its
/// connection is closed in between, because its execution continues.
pub(super) struct Outbox {
    pub(super) connection: u64,
    limits: Limits,
    /// Wakes the connection's task.
    wake: Notify,
    state: Mutex<State>,
}

/// A snapshot for the connection's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) in_flight: usize,
    /// Bytes of responses that are not written yet.
    pub(super) unread: usize,
    pub(super) ended: Option<&'static str>,
}

/// A request id is in flight already, which is a client error: the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeated(pub(super) u64);

impl Outbox {
    pub(super) fn new(connection: u64, limits: Limits) -> Self {
        Outbox {
            connection,
            limits,
            wake: Notify::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until the task is woken.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Admits requests, each with the size of its frame; rejected ones are answered here.
    pub(super) fn admit(
        &self,
        frames: Vec<(RequestFrame, usize)>,
        closing: bool,
        router: &dyn Router,
        load: &Load,
    ) -> Result<Vec<(ClientRef, RequestFrame)>, Repeated> {
        let now = load.now();
        let mut state = self.state();
        let mut batch: Vec<(ClientRef, RequestFrame)> = Vec::with_capacity(frames.len());
        for (frame, size) in frames {
            let admitted = if closing && !state.in_flight.contains(frame.id) {
                Err(Rejection::Error(Error::Closed(
                    "the node is stopping: use another node".to_owned(),
                )))
            } else {
                let (limits, totals) = (&self.limits.admission, &mut load.totals());
                let required = |need: &Need| router.required(need);
                state.in_flight.admit(&frame, size, now, limits, totals, required)
            };
            match admitted {
                Ok(()) => {
                    let client = ClientRef {
                        connection: self.connection,
                        request: frame.id,
                    };
                    batch.push((client, frame));
                }
                Err(Rejection::Error(error)) => self.push(&mut state, frame.id, Err(error), load),
                Err(Rejection::Duplicate) => {
                    let mut totals = load.totals();
                    for (client, _) in batch {
                        state.in_flight.release(client.request, &mut totals);
                    }
                    return Err(Repeated(frame.id));
                }
            }
        }
        Ok(batch)
    }

    /// Rejects a request with an error.
    pub(super) fn refuse(&self, id: u64, error: Error, load: &Load) -> Result<(), Repeated> {
        let mut state = self.state();
        if state.in_flight.contains(id) {
            return Err(Repeated(id));
        }
        self.push(&mut state, id, Err(error), load);
        Ok(())
    }

    /// Answers an admitted request; a response without a pending request is dropped. Returns whether to
    /// [wake](Self::wake) the connection's task.
    pub(super) fn answer(&self, request: u64, response: Result<Response, Error>, load: &Load) -> bool {
        let mut state = self.state();
        if state.in_flight.release(request, &mut load.totals()).is_none() {
            return false;
        }
        if state.ended.is_some() {
            // Its task only waits for the last response.
            return state.in_flight.is_empty();
        }
        let idle = state.buffer.is_empty();
        self.push(&mut state, request, response, load);
        idle
    }

    /// Appends a response, or marks the connection to be closed if too much is unread.
    fn push(&self, state: &mut State, id: u64, response: Result<Response, Error>, load: &Load) {
        if state.ended.is_some() {
            return;
        }
        let before = state.buffer.len();
        if frame::encode(
            &ResponseFrame { id, response },
            MAX_CLIENT_FRAME,
            &mut state.buffer,
        )
        .is_err()
        {
            let response = Err(Error::LimitExceeded {
                what: "the response in bytes".to_owned(),
                size: MAX_CLIENT_FRAME as u64 + 1,
                limit: MAX_CLIENT_FRAME as u64,
                remedy: "scan with a smaller limit, or put a merged value in place of the key's siblings"
                    .to_owned(),
            });
            frame::encode(
                &ResponseFrame { id, response },
                MAX_CLIENT_FRAME,
                &mut state.buffer,
            )
            .expect("an error always fits into a frame");
        }
        let all = load.unread.take(state.buffer.len() - before);
        if state.unread() > self.limits.unread_bytes {
            state.ended = Some("the client does not read its responses");
        } else if all > self.limits.all_unread_bytes {
            state.ended = Some("the clients together have too many unread responses");
        }
    }

    /// Swaps the pending responses for an empty buffer.
    pub(super) fn take(&self, empty: &mut BytesMut) {
        assert!(empty.is_empty(), "unwritten responses would be lost");
        let mut state = self.state();
        std::mem::swap(&mut state.buffer, empty);
        state.taken = empty.len();
    }

    /// Records that this many of the taken bytes were written.
    pub(super) fn written(&self, bytes: usize, load: &Load) {
        self.state().taken -= bytes;
        load.unread.give_back(bytes);
    }

    pub(super) fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            in_flight: state.in_flight.len(),
            unread: state.unread(),
            ended: state.ended,
        }
    }

    /// Answers overdue requests, so that they do not count forever.
    pub(super) fn sweep(&self, router: &dyn Router, load: &Load) {
        let mut state = self.state();
        for id in state.in_flight.overdue(load.now(), &self.limits.admission) {
            let pending = state.in_flight.release(id, &mut load.totals());
            let need = pending.expect("it was just found").need;
            tracing::warn!(
                connection = self.connection,
                request = id,
                "a request was not answered before its deadline"
            );
            self.push(&mut state, id, Err(need.unanswered(router.required(&need))), load);
        }
    }

    /// The socket is closed: responses are dropped. Requests in flight count until they are answered.
    pub(super) fn end(&self, load: &Load) {
        let mut state = self.state();
        state.ended.get_or_insert("closed");
        load.unread.give_back(state.unread());
        state.taken = 0;
        state.buffer = BytesMut::new();
    }

    /// Releases all requests of the connection.
    pub(super) fn forget(&self, load: &Load) {
        self.state().in_flight.release_all(&mut load.totals());
    }
}

impl State {
    fn unread(&self) -> usize {
        self.buffer.len() + self.taken
    }
}
