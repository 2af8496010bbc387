//! The state of a driver: the core and its connections. Takes events and performs effects; nothing here blocks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::time::{Instant, Now, WallTime};
use tokio::sync::oneshot;

use super::dial::{self, Dial, Progress};
use super::poller::Poller;
use super::socket::{Received, Socket};
use super::spans::SpanRing;
use crate::core::{ClientCore, ClientEffect, ClientEvent, Outcome};

/// Maximum number of reads from one socket per turn.
const READS: usize = 4;
/// Buffer size of a read.
const READ_BUFFER: usize = 64 << 10;

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

pub(super) struct State {
    pub(super) core: ClientCore,
    rng: Rng,
    origin: std::time::Instant,
    /// Dropped when the client is closed.
    poller: Option<Arc<Poller>>,
    /// For threads that resolve names.
    resolved: Arc<Mutex<Vec<Resolved>>>,
    /// Events that the core has not handled yet.
    events: VecDeque<ClientEvent>,
    /// Whether they are being handled.
    handling: bool,
    effects: Vec<ClientEffect>,
    pub(super) calls: HashMap<u64, oneshot::Sender<Outcome>>,
    pub(super) last_op: u64,
    links: BTreeMap<u64, Link>,
    /// Connections with bytes to send.
    pub(super) dirty: Vec<u64>,
    buffer: Box<[u8]>,
    opened: Option<oneshot::Sender<Result<(), Error>>>,
    /// The deadline for reaching the cluster, and the error after it.
    pub(super) open_until: Option<(Instant, Error)>,
    /// The core's timer.
    timer_at: Instant,
    spans: Arc<SpanRing>,
    /// The Tokio task that drives, if any.
    pub(super) task: Option<Waker>,
    /// No handle is left: it closes when nothing is in flight.
    pub(super) abandoned: bool,
    pub(super) closed: bool,
    /// The core panicked.
    broken: bool,
}

impl State {
    pub(super) fn new(
        core: ClientCore,
        rng: Rng,
        poller: Arc<Poller>,
        opened: oneshot::Sender<Result<(), Error>>,
        spans: Arc<SpanRing>,
    ) -> Self {
        State {
            core,
            rng,
            origin: std::time::Instant::now(),
            poller: Some(poller),
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
        }
    }

    pub(super) fn now(&self) -> Now {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Now {
            instant: Instant(micros(self.origin.elapsed())),
            wall: WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)),
        }
    }

    /// Lets the core handle an event, and those that follow from its effects.
    pub(super) fn handle(&mut self, event: ClientEvent) {
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

    pub(super) fn set_timer(&self) {
        let until = self
            .open_until
            .as_ref()
            .map_or(Instant::NEVER, |(until, _)| *until);
        let at = self.timer_at.min(until);
        if at < Instant::NEVER {
            let after = at.since(self.now().instant);
            self.poller.iter().for_each(|poller| poller.set_timer(after));
        }
    }

    fn poller(&self) -> io::Result<&Poller> {
        self.poller
            .as_deref()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the client is closed"))
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
    pub(super) fn timer(&mut self) {
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
        let poller = self.poller.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let resolved = Arc::downgrade(&self.resolved);
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

    pub(super) fn take_resolved(&mut self) {
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
            self.poller()?.await_connected(&dial, connection)?;
            Ok(dial)
        });
        match dialling {
            Ok(dial) => drop(self.links.insert(connection, Link::Dialling(dial))),
            Err(error) => self.lost(connection, refused(&error)),
        }
    }

    /// A connection's socket is ready.
    pub(super) fn ready(&mut self, connection: u64) {
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
                Link::Open(socket) => self.poller()?.await_bytes(socket, connection, false)?,
                Link::Dialling(dial) => self.poller()?.await_connected(dial, connection)?,
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
    pub(super) fn flush(&mut self) {
        while let Some(connection) = self.dirty.pop() {
            let Some(Link::Open(socket)) = self.links.get_mut(&connection) else {
                continue;
            };
            let before = socket.is_blocked();
            let flushed = socket.flush().and_then(|()| match socket.is_blocked() {
                blocked if blocked != before => match &self.poller {
                    Some(poller) => poller.await_bytes(&*socket, connection, blocked),
                    None => Ok(()),
                },
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

    pub(super) fn end(&mut self) {
        if !self.closed {
            self.closed = true;
            self.handle(ClientEvent::Close);
            self.poller = None;
        }
    }

    pub(super) fn mark_broken(&mut self) {
        (self.broken, self.closed) = (true, true);
        self.calls.clear();
        self.links.clear();
        self.opened = None;
        self.poller = None;
    }

    pub(super) fn wake_task(&self) {
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
