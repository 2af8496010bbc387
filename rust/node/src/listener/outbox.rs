//! What a connection shares with those who answer its requests: which are in flight, and the bytes to send.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_protocol::api::{
    MAX_CLIENT_FRAME, MAX_VALUE_BYTES, Request, RequestFrame, Response, ResponseFrame,
};
use quorate_protocol::error::Error;
use quorate_protocol::frame;
use quorate_protocol::role::ClientRef;
use tokio::sync::Notify;

use super::limits::{Limits, Load};
use super::{Need, Router};

/// The bytes that a request counts for beside its key and value.
const REQUEST_OVERHEAD: usize = 256;

/// A request in flight.
struct Pending {
    bytes: usize,
    deadline: Instant,
    need: Need,
}

#[derive(Default)]
struct State {
    in_flight: HashMap<u64, Pending>,
    bytes_in_flight: usize,
    /// Answers that the connection's task has not taken yet.
    buffer: BytesMut,
    /// Bytes that it has taken and not written yet.
    taken: usize,
    /// Why the connection must end, or has ended.
    ended: Option<&'static str>,
}

/// One connection as the rest of the node sees it.
///
/// Invariant: a request is in `in_flight` from its admission to its answer, and counted in [`Load`] just as long; also
/// when its connection ends in between, because whoever works on it goes on.
pub(super) struct Outbox {
    pub(super) connection: u64,
    limits: Limits,
    /// Wakes the connection's task.
    wake: Notify,
    state: Mutex<State>,
}

/// What the connection's task must know to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) in_flight: usize,
    /// Bytes of answers that are not written yet.
    pub(super) unread: usize,
    pub(super) ended: Option<&'static str>,
}

/// A request id is in flight already: the client has lost count, and the connection must end.
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

    /// Until somebody wakes the task.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Lets requests in; those that are turned down are answered here.
    pub(super) fn admit(
        &self,
        frames: Vec<RequestFrame>,
        closing: bool,
        router: &dyn Router,
        load: &Load,
    ) -> Result<Vec<(ClientRef, RequestFrame)>, Repeated> {
        let now = Instant::now();
        let mut state = self.state();
        let mut batch: Vec<(ClientRef, RequestFrame)> = Vec::with_capacity(frames.len());
        for frame in frames {
            if state.in_flight.contains_key(&frame.id) {
                for (client, _) in batch {
                    state.release(client.request, load);
                }
                return Err(Repeated(frame.id));
            }
            let bytes = weight(&frame.request);
            let verdict = if closing {
                Err(Error::Closed("the node is stopping: ask another one".to_owned()))
            } else {
                acceptable(&frame, router).and_then(|()| state.room(bytes, &self.limits, load))
            };
            if let Err(error) = verdict {
                self.push(&mut state, frame.id, Err(error), load);
                continue;
            }
            let pending = Pending {
                bytes,
                deadline: now + Duration::from_millis(u64::from(frame.deadline_ms)),
                need: Need::of(&frame.request),
            };
            state.bytes_in_flight += bytes;
            state.in_flight.insert(frame.id, pending);
            let client = ClientRef {
                connection: self.connection,
                request: frame.id,
            };
            batch.push((client, frame));
        }
        Ok(batch)
    }

    /// Answers a request that was not let in.
    pub(super) fn refuse(&self, id: u64, error: Error, load: &Load) -> Result<(), Repeated> {
        let mut state = self.state();
        if state.in_flight.contains_key(&id) {
            return Err(Repeated(id));
        }
        self.push(&mut state, id, Err(error), load);
        Ok(())
    }

    /// Answers a request that was let in; an answer that nobody waits for is dropped. Returns whether the connection's
    /// task is to be [woken](Self::wake).
    pub(super) fn answer(&self, request: u64, response: Result<Response, Error>, load: &Load) -> bool {
        let mut state = self.state();
        if state.release(request, load).is_none() {
            return false;
        }
        if state.ended.is_some() {
            // All that its task still waits for is the last answer.
            return state.in_flight.is_empty();
        }
        let idle = state.buffer.is_empty();
        self.push(&mut state, request, response, load);
        idle
    }

    /// Appends an answer, or marks the connection for its end when too much is unread.
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
                what: "the answer in bytes".to_owned(),
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
            state.ended = Some("the client does not read its answers");
        } else if all > self.limits.all_unread_bytes {
            state.ended = Some("the clients together read too few of their answers");
        }
    }

    /// Swaps the answers for an empty buffer.
    pub(super) fn take(&self, empty: &mut BytesMut) {
        assert!(empty.is_empty(), "answers that were not written would be lost");
        let mut state = self.state();
        std::mem::swap(&mut state.buffer, empty);
        state.taken = empty.len();
    }

    /// So many of the bytes that were taken are written.
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

    /// Answers what should have been answered long ago, so that it does not count for ever.
    pub(super) fn sweep(&self, now: Instant, router: &dyn Router, load: &Load) {
        let mut state = self.state();
        let overdue: Vec<u64> = state
            .in_flight
            .iter()
            .filter(|(_, pending)| pending.deadline + self.limits.overdue <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            let pending = state.release(id, load).expect("it was just found");
            tracing::warn!(
                connection = self.connection,
                request = id,
                "nobody answered a request"
            );
            let required = router.required(&pending.need);
            let error = match pending.need.writes {
                true => Error::OutcomeUnknown {
                    acked: 0,
                    required,
                    reason: None,
                },
                false => Error::ReadTimeout {
                    answered: 0,
                    required,
                },
            };
            self.push(&mut state, id, Err(error), load);
        }
    }

    /// The socket is closed: answers go nowhere. What is in flight counts until it is answered.
    pub(super) fn end(&self, load: &Load) {
        let mut state = self.state();
        state.ended.get_or_insert("closed");
        load.unread.give_back(state.unread());
        state.taken = 0;
        state.buffer = BytesMut::new();
    }

    /// Nobody will look after this connection's requests any longer.
    pub(super) fn forget(&self, load: &Load) {
        let mut state = self.state();
        for id in state.in_flight.keys().copied().collect::<Vec<u64>>() {
            state.release(id, load);
        }
    }
}

impl State {
    fn unread(&self) -> usize {
        self.buffer.len() + self.taken
    }

    /// Takes room for a request of so many bytes.
    fn room(&self, bytes: usize, limits: &Limits, load: &Load) -> Result<(), Error> {
        let full = if self.in_flight.len() >= limits.connection_requests {
            format!(
                "{} requests are in flight on this connection",
                self.in_flight.len()
            )
        } else if self.bytes_in_flight + bytes > limits.connection_bytes {
            format!(
                "requests of {} bytes are in flight on this connection",
                self.bytes_in_flight
            )
        } else if !load.requests.try_take(1, limits.requests) {
            format!("{} requests are in flight on this node", limits.requests)
        } else if !load.bytes.try_take(bytes, limits.request_bytes) {
            load.requests.give_back(1);
            format!(
                "requests of {} bytes are in flight on this node",
                load.bytes.used()
            )
        } else {
            return Ok(());
        };
        load.refused.fetch_add(1, Ordering::Relaxed);
        let remedy = "nothing was done about this one; wait a moment and try again, or use fewer clients";
        Err(Error::Overloaded(format!("{full}: {remedy}")))
    }

    /// A request is in flight no longer, if it was.
    fn release(&mut self, request: u64, load: &Load) -> Option<Pending> {
        let pending = self.in_flight.remove(&request)?;
        self.bytes_in_flight -= pending.bytes;
        load.requests.give_back(1);
        load.bytes.give_back(pending.bytes);
        Some(pending)
    }
}

/// What a request counts for.
fn weight(request: &Request) -> usize {
    let payload = match request {
        Request::Put { key, value, .. } => key.size() + value.as_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    payload + REQUEST_OVERHEAD
}

/// Whether a request can be served at all.
fn acceptable(frame: &RequestFrame, router: &dyn Router) -> Result<(), Error> {
    if let Request::Put {
        key,
        value: Some(value),
        ..
    } = &frame.request
        && value.len() > MAX_VALUE_BYTES
    {
        return Err(Error::LimitExceeded {
            what: format!("the value of {key} in bytes"),
            size: value.len() as u64,
            limit: MAX_VALUE_BYTES as u64,
            remedy: "split it into several keys".to_owned(),
        });
    }
    if frame.deadline_ms > 0 {
        return Ok(());
    }
    let need = Need::of(&frame.request);
    Err(match need.writes {
        true => Error::Overloaded(
            "the deadline had passed when the request arrived; nothing was done about it: raise the timeout"
                .to_owned(),
        ),
        false => Error::ReadTimeout {
            answered: 0,
            required: router.required(&need),
        },
    })
}
