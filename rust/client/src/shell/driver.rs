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

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::Request;
use tokio::sync::{oneshot, watch};

use super::dial::{self, Dial, Progress};
use super::poller::{Poller, Ready};
use super::socket::{Received, Socket};
use super::spans::SpanRing;
use super::turns::Turns;
use crate::core::{CallOptions, ClientCore, ClientEffect, ClientEvent, Outcome};

/// Maximum number of reads from one socket per turn.
const READS: usize = 4;
/// Buffer size of a read.
const READ_BUFFER: usize = 64 << 10;

/// A client's core and its sockets; see the module's documentation.
#[derive(Clone)]
pub struct Driver(pub(super) Arc<Shared>);

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) poller: Arc<Poller>,
    pub(super) turns: Turns,
    closed: watch::Sender<bool>,
}

type Resolved = (u64, io::Result<VecDeque<SocketAddr>>);

/// The state of a connection's socket.
enum Link {
    /// Its name is being resolved.
    Resolving,
    /// It is being established.
    Dialling(Dial),
    /// It is established.
    Open(Socket),
}

struct State {
    core: ClientCore,
    rng: Rng,
    origin: std::time::Instant,
    poller: Arc<Poller>,
    /// For threads that resolve names.
    resolved: Arc<Mutex<Vec<Resolved>>>,
    /// Events that the core has not handled yet.
    events: VecDeque<ClientEvent>,
    /// Whether they are being handled.
    handling: bool,
    effects: Vec<ClientEffect>,
    calls: HashMap<u64, oneshot::Sender<Outcome>>,
    last_op: u64,
    links: BTreeMap<u64, Link>,
    /// Connections with bytes to send.
    dirty: Vec<u64>,
    buffer: Box<[u8]>,
    opened: Option<oneshot::Sender<Result<(), Error>>>,
    /// The deadline for reaching the cluster, and the error after it.
    open_until: Option<(Instant, Error)>,
    /// The core's timer.
    timer_at: Instant,
    spans: Arc<SpanRing>,
    /// The Tokio task that drives, if any.
    task: Option<Waker>,
    /// No handle is left: it closes when nothing is in flight.
    abandoned: bool,
    closed: bool,
    /// The core panicked.
    broken: bool,
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
        let mut state = State {
            core,
            rng,
            origin: std::time::Instant::now(),
            poller: Arc::clone(&poller),
            resolved: Arc::default(),
            events: VecDeque::new(),
            handling: false,
            effects: Vec::new(),
            calls: HashMap::new(),
            last_op: 0,
            links: BTreeMap::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            opened: Some(opened),
            open_until: None,
            timer_at: Instant::NEVER,
            spans,
            task: None,
            abandoned: false,
            closed: false,
            broken: false,
        };
        state.open_until = Some((state.now().instant + timeout, timeout_error));
        state.set_timer();
        state.handle(ClientEvent::Start);
        Ok(Driver(Arc::new(Shared {
            state: Mutex::new(state),
            poller,
            turns: Turns::default(),
            closed: watch::Sender::new(false),
        })))
    }

    /// Whether the client is closed: there is nothing to drive any more.
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }
}

impl AsFd for Driver {
    /// A descriptor that is readable while there is something to drive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.poller.as_fd()
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
        self.turn_with(timeout, || true, |_| {})
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
        if begin() {
            found = self.poller.wait(timeout, |ready| match ready {
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

impl State {
    fn now(&self) -> Now {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Now {
            instant: Instant(micros(self.origin.elapsed())),
            wall: WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)),
        }
    }

    /// Lets the core handle an event, and those that follow from its effects.
    fn handle(&mut self, event: ClientEvent) {
        if self.broken {
            self.calls.clear();
            return;
        }
        self.events.push_back(event);
        if std::mem::replace(&mut self.handling, true) {
            return;
        }
        while let Some(event) = self.events.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.core.handle(self.now(), &mut self.rng, event, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.effects = effects;
        }
        self.handling = false;
    }

    fn perform(&mut self, effect: ClientEffect) {
        match effect {
            ClientEffect::Connect { connection, address } => self.resolve(connection, address),
            ClientEffect::Send { connection, bytes } => {
                if let Some(Link::Open(socket)) = self.links.get_mut(&connection) {
                    if socket.is_clean() {
                        self.dirty.push(connection);
                    }
                    socket.push(&bytes);
                }
            }
            ClientEffect::Disconnect { connection } => {
                if let Some(Link::Open(mut socket)) = self.links.remove(&connection) {
                    socket.flush_before_close();
                }
            }
            ClientEffect::Complete { op, outcome } => {
                if let Some(answer) = self.calls.remove(&op) {
                    // The caller may have dropped its receiver.
                    let _gone = answer.send(outcome);
                }
            }
            ClientEffect::SetTimer { at } => {
                self.timer_at = at;
                self.set_timer();
            }
            ClientEffect::Opened(result) => self.open(result),
            ClientEffect::Span(span) => self.spans.push(*span),
        }
    }

    fn set_timer(&self) {
        let until = self
            .open_until
            .as_ref()
            .map_or(Instant::NEVER, |(until, _)| *until);
        let at = self.timer_at.min(until);
        if at < Instant::NEVER {
            self.poller.set_timer(at.since(self.now().instant));
        }
    }

    /// Reports whether the cluster was reached.
    fn open(&mut self, result: Result<(), Error>) {
        self.open_until = None;
        if let Some(opened) = self.opened.take() {
            // The receiver may have been dropped.
            let _gone = opened.send(result);
        }
    }

    /// The timer has fired.
    fn timer(&mut self) {
        let now = self.now().instant;
        match self.open_until.take() {
            Some((until, timeout_error)) if until <= now => self.open(Err(timeout_error)),
            waiting => self.open_until = waiting,
        }
        self.timer_at = Instant::NEVER;
        self.handle(ClientEvent::Timer);
        self.set_timer();
    }

    fn resolve(&mut self, connection: u64, address: String) {
        self.links.insert(connection, Link::Resolving);
        let (resolved, poller) = (Arc::downgrade(&self.resolved), Arc::downgrade(&self.poller));
        let found = move |addresses| push_resolved(&resolved, &poller, connection, addresses);
        match dial::resolve(address, found) {
            Ok(Some(address)) => self.dial(connection, Ok(VecDeque::from([address]))),
            Ok(None) => {}
            Err(error) => self.lost(
                connection,
                Error::Overloaded(format!("no thread to resolve a name: {error}")),
            ),
        }
    }

    fn take_resolved(&mut self) {
        let resolved = std::mem::take(&mut *self.resolved.lock().unwrap_or_else(PoisonError::into_inner));
        for (connection, addresses) in resolved {
            // Results of aborted dials are dropped.
            if matches!(self.links.get(&connection), Some(Link::Resolving)) {
                self.dial(connection, addresses);
            }
        }
    }

    fn dial(&mut self, connection: u64, addresses: io::Result<VecDeque<SocketAddr>>) {
        let dialling = addresses.and_then(Dial::begin).and_then(|dial| {
            self.poller.await_connected(&dial, connection)?;
            Ok(dial)
        });
        match dialling {
            Ok(dial) => drop(self.links.insert(connection, Link::Dialling(dial))),
            Err(error) => self.lost(connection, refused(&error)),
        }
    }

    /// A connection's socket is ready.
    fn ready(&mut self, connection: u64) {
        match self.links.remove(&connection) {
            Some(Link::Dialling(dial)) => self.connected(connection, dial),
            Some(Link::Open(socket)) => {
                if socket.is_blocked() {
                    self.dirty.push(connection);
                }
                self.links.insert(connection, Link::Open(socket));
                self.read(connection);
            }
            Some(Link::Resolving) => drop(self.links.insert(connection, Link::Resolving)),
            None => {}
        }
    }

    fn connected(&mut self, connection: u64, dial: Dial) {
        let connected = dial.ready().and_then(|progress| match progress {
            Progress::Connected(stream) => Socket::new(stream).map(Link::Open),
            Progress::Again(dial) => Ok(Link::Dialling(dial)),
        });
        let awaited = connected.and_then(|link| {
            match &link {
                Link::Open(socket) => self.poller.await_bytes(socket, connection, false)?,
                Link::Dialling(dial) => self.poller.await_connected(dial, connection)?,
                Link::Resolving => {}
            }
            Ok(link)
        });
        match awaited {
            Ok(link) => {
                let open = matches!(link, Link::Open(_));
                self.links.insert(connection, link);
                if open {
                    self.handle(ClientEvent::Connected { connection });
                }
            }
            Err(error) => self.lost(connection, refused(&error)),
        }
    }

    /// Reads available bytes.
    fn read(&mut self, connection: u64) {
        for _ in 0..READS {
            let Some(Link::Open(socket)) = self.links.get_mut(&connection) else {
                return;
            };
            match socket.read(&mut self.buffer) {
                Ok(Received::Bytes(bytes, more)) => {
                    self.handle(ClientEvent::Received { connection, bytes });
                    if !more {
                        return;
                    }
                }
                Ok(Received::Nothing) => return,
                Ok(Received::End) => {
                    let error = Error::ConnectionLost("the node closed the connection".to_owned());
                    return self.lost(connection, error);
                }
                Err(error) => return self.lost(connection, Error::ConnectionLost(error.to_string())),
            }
        }
    }

    /// Writes buffered bytes.
    fn flush(&mut self) {
        while let Some(connection) = self.dirty.pop() {
            let Some(Link::Open(socket)) = self.links.get_mut(&connection) else {
                continue;
            };
            let before = socket.is_blocked();
            let flushed = socket.flush().and_then(|()| match socket.is_blocked() {
                blocked if blocked != before => self.poller.await_bytes(&*socket, connection, blocked),
                _ => Ok(()),
            });
            if let Err(error) = flushed {
                self.lost(connection, Error::ConnectionLost(error.to_string()));
            }
        }
    }

    /// A connection was lost, or could not be established.
    fn lost(&mut self, connection: u64, error: Error) {
        let written = match self.links.remove(&connection) {
            Some(Link::Open(socket)) => socket.written,
            _ => 0,
        };
        self.handle(ClientEvent::Disconnected {
            connection,
            written,
            error,
        });
    }

    fn end(&mut self) {
        if !self.closed {
            self.closed = true;
            self.handle(ClientEvent::Close);
        }
    }

    fn mark_broken(&mut self) {
        (self.broken, self.closed) = (true, true);
        self.calls.clear();
        self.links.clear();
        self.opened = None;
    }

    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

fn push_resolved(
    resolved: &Weak<Mutex<Vec<Resolved>>>,
    poller: &Weak<Poller>,
    connection: u64,
    addresses: io::Result<VecDeque<SocketAddr>>,
) {
    // A dropped client dials nothing.
    if let (Some(resolved), Some(poller)) = (resolved.upgrade(), poller.upgrade()) {
        let mut resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.push((connection, addresses));
        poller.notify();
    }
}

/// The error of a dial that failed.
fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused(error.to_string()),
        _ => Error::ConnectionLost(error.to_string()),
    }
}
