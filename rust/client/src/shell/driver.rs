//! The task that owns the core: commands and bytes in, effects out.
//!
//! It is one future that looks at everything it may have to do whenever it is woken: commands, finished dials, readable
//! sockets, the timer. What the core wants sent gathers per socket and is written at the end of each round, so that
//! a burst of calls costs one system call per connection.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::Request;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Sleep;

use super::socket::{Socket, dial};
use super::spans::SpanRing;
use crate::core::{CallOptions, ClientCore, ClientEffect, ClientEvent, Outcome};

/// Commands taken at a time.
const COMMANDS: usize = 512;
/// Reads from one socket before the others have their turn.
const READS: usize = 4;

/// What a [`Client`](super::Client) tells its driver.
// The large one is the usual one: a box would only cost an allocation per call.
#[allow(clippy::large_enum_variant)]
pub(super) enum Command {
    /// Do this.
    Call {
        request: Request,
        options: CallOptions,
        answer: oneshot::Sender<Outcome>,
    },
    /// End.
    Close,
}

type Dialled = (u64, io::Result<Socket>);

pub(super) struct Driver {
    core: ClientCore,
    rng: Rng,
    origin: std::time::Instant,
    commands: mpsc::UnboundedReceiver<Command>,
    batch: Vec<Command>,
    calls: HashMap<u64, oneshot::Sender<Outcome>>,
    last_op: u64,
    sockets: BTreeMap<u64, Socket>,
    dials: JoinSet<Dialled>,
    dialling: BTreeMap<u64, AbortHandle>,
    timer: Option<Pin<Box<Sleep>>>,
    opened: Option<oneshot::Sender<Result<(), Error>>>,
    spans: Arc<SpanRing>,
    effects: Vec<ClientEffect>,
    /// No handle is left: it ends when nothing is in flight.
    abandoned: bool,
    closed: bool,
}

impl Driver {
    pub(super) fn new(
        core: ClientCore,
        rng: Rng,
        commands: mpsc::UnboundedReceiver<Command>,
        opened: oneshot::Sender<Result<(), Error>>,
        spans: Arc<SpanRing>,
    ) -> Self {
        let mut driver = Driver {
            core,
            rng,
            origin: std::time::Instant::now(),
            commands,
            batch: Vec::with_capacity(COMMANDS),
            calls: HashMap::new(),
            last_op: 0,
            sockets: BTreeMap::new(),
            dials: JoinSet::new(),
            dialling: BTreeMap::new(),
            timer: None,
            opened: Some(opened),
            spans,
            effects: Vec::new(),
            abandoned: false,
            closed: false,
        };
        driver.tell(driver.now(), ClientEvent::Start);
        driver
    }

    fn now(&self) -> Now {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Now {
            instant: Instant(micros(self.origin.elapsed())),
            wall: WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)),
        }
    }

    fn tell(&mut self, now: Now, event: ClientEvent) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.handle(now, &mut self.rng, event, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
    }

    fn perform(&mut self, effect: ClientEffect) {
        match effect {
            ClientEffect::Connect { connection, address } => {
                let task = self.dials.spawn(async move { (connection, dial(address).await) });
                self.dialling.insert(connection, task);
            }
            ClientEffect::Send { connection, bytes } => {
                if let Some(socket) = self.sockets.get_mut(&connection) {
                    socket.push(&bytes);
                }
            }
            ClientEffect::Disconnect { connection } => {
                if let Some(mut socket) = self.sockets.remove(&connection) {
                    socket.farewell();
                }
                if let Some(task) = self.dialling.remove(&connection) {
                    task.abort();
                }
            }
            ClientEffect::Complete { op, outcome } => {
                if let Some(answer) = self.calls.remove(&op) {
                    // A caller that has gone does not want it.
                    let _gone = answer.send(outcome);
                }
            }
            ClientEffect::SetTimer { at } => {
                let at = tokio::time::Instant::from_std(self.origin) + Duration::from_micros(at.0);
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(at),
                    None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
                }
            }
            ClientEffect::Opened(result) => {
                if let Some(opened) = self.opened.take() {
                    // Nobody waits any longer: the time to connect was up.
                    let _gone = opened.send(result);
                }
            }
            ClientEffect::Span(span) => self.spans.push(*span),
        }
    }

    /// Takes the commands that have gathered. Returns whether there were any.
    fn take_commands(&mut self, context: &mut Context<'_>) -> bool {
        if self.abandoned {
            return false;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let taken = self.commands.poll_recv_many(context, &mut batch, COMMANDS);
        let now = self.now();
        for command in batch.drain(..) {
            match command {
                Command::Call {
                    request,
                    options,
                    answer,
                } => {
                    self.last_op += 1;
                    self.calls.insert(self.last_op, answer);
                    let op = self.last_op;
                    self.tell(now, ClientEvent::Submit { op, request, options });
                }
                Command::Close => {
                    self.closed = true;
                    self.tell(now, ClientEvent::Close);
                }
            }
        }
        self.batch = batch;
        match taken {
            Poll::Ready(0) => {
                self.abandoned = true;
                true
            }
            Poll::Ready(_) => true,
            Poll::Pending => false,
        }
    }

    /// Takes the connections that are established, or failed to be.
    fn take_dialled(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Poll::Ready(Some(dialled)) = self.dials.poll_join_next(context) {
            progress = true;
            // A dial that was aborted is wanted by nobody.
            let Ok((connection, result)) = dialled else {
                continue;
            };
            if self.dialling.remove(&connection).is_none() {
                continue;
            }
            let event = match result {
                Ok(socket) => {
                    self.sockets.insert(connection, socket);
                    ClientEvent::Connected { connection }
                }
                Err(error) => ClientEvent::Disconnected {
                    connection,
                    written: 0,
                    error: match error.kind() {
                        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused(error.to_string()),
                        _ => Error::ConnectionLost(error.to_string()),
                    },
                },
            };
            self.tell(self.now(), event);
        }
        progress
    }

    /// Takes what has come on the sockets.
    fn take_bytes(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        let mut next = self.sockets.first_key_value().map(|(connection, _)| *connection);
        while let Some(connection) = next {
            for _ in 0..READS {
                let Some(socket) = self.sockets.get_mut(&connection) else {
                    break;
                };
                let Poll::Ready(read) = socket.poll_read(context) else {
                    break;
                };
                progress = true;
                match read {
                    Ok(bytes) if bytes.is_empty() => {
                        self.lost(connection, "the node closed the connection".to_owned())
                    }
                    Ok(bytes) => self.tell(self.now(), ClientEvent::Received { connection, bytes }),
                    Err(error) => self.lost(connection, error.to_string()),
                }
            }
            next = self
                .sockets
                .range(connection + 1..)
                .next()
                .map(|(connection, _)| *connection);
        }
        progress
    }

    fn take_timer(&mut self, context: &mut Context<'_>) -> bool {
        let due = |timer: &mut Pin<Box<Sleep>>| timer.as_mut().poll(context).is_ready();
        let fired = self.timer.as_mut().is_some_and(due);
        if fired {
            self.timer = None;
            self.tell(self.now(), ClientEvent::Timer);
        }
        fired
    }

    /// Writes what has gathered.
    fn flush(&mut self, context: &mut Context<'_>) -> bool {
        let mut broken = Vec::new();
        for (connection, socket) in &mut self.sockets {
            if let Err(error) = socket.flush(context) {
                broken.push((*connection, error.to_string()));
            }
        }
        let progress = !broken.is_empty();
        for (connection, reason) in broken {
            self.lost(connection, reason);
        }
        progress
    }

    fn lost(&mut self, connection: u64, reason: String) {
        let Some(socket) = self.sockets.remove(&connection) else {
            return;
        };
        let event = ClientEvent::Disconnected {
            connection,
            written: socket.written,
            error: Error::ConnectionLost(reason),
        };
        self.tell(self.now(), event);
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        loop {
            let mut progress = driver.take_dialled(context);
            progress |= driver.take_bytes(context);
            progress |= driver.take_commands(context);
            progress |= driver.take_timer(context);
            progress |= driver.flush(context);
            if !driver.closed && driver.abandoned && driver.core.in_flight() == 0 {
                driver.closed = true;
                driver.tell(driver.now(), ClientEvent::Close);
            }
            if driver.closed {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}
