//! The client listener: the node's side of the client protocol.
//!
//! ```text
//! Listener (ractor actor, restartable: it holds no state that matters)
//!   └─ accept task ── one task per connection: hello, then frames in ─▶ [`Router`]
//!                                              answers out ◀─ [`Replies`]
//! ```
//! A connection's task decodes all frames that have come, lets them in, and hands them on as one batch. An answer is
//! encoded into the connection's outbox by whoever gives it; the task is woken once and writes all that has gathered.
//!
//! Admission happens here and nowhere else: whatever was let in is answered, and so every mailbox behind the listener
//! is bounded ([`quorate_protocol::admission`]). Beyond the limits a request is answered [`Error::Overloaded`] at once, before anything is done
//! about it. A request counts until it is answered, also when its connection has gone in the meantime.
//!
//! Nothing that a client sends, or fails to read, makes the node keep more than the limits say: a connection that sends
//! garbage is closed at its first byte; a large request waits for its turn before it may come in, and must then come
//! in time; from a client that does not read its answers no more requests are read, and in the end it is closed.
//!
//! When the listener is stopped it goes on answering what was let in for a moment ([`DRAIN`]), and answers what comes
//! after with [`Error::Closed`], so that clients of a node that stops in good order are left with no unknown outcome.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quorate_core::error::Error;
use quorate_protocol::admission::Need;
use quorate_protocol::api::{RequestFrame, Response};
use quorate_protocol::role::ClientRef;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub use self::greeting::Identity;
pub use self::limits::Limits;
use self::limits::Load;
use self::outbox::Outbox;

mod connection;
mod greeting;
mod limits;
mod outbox;
#[cfg(test)]
mod tests;

/// How long a listener that is stopped waits for the answers of what it has let in: about as long as one that is on its
/// way takes, since every moment of it is one that a stopping node takes longer.
pub const DRAIN: Duration = Duration::from_millis(250);
/// Connections beyond the limit that are told so at a time; further ones are closed without a word.
const TURNED_AWAY: usize = 64;
/// How long such a connection is listened to, so that it can hear why.
const TURNING_AWAY: Duration = Duration::from_secs(1);
/// A client's machine that has vanished is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Takes the requests that were let in. Each must be answered once, through [`Replies`].
pub trait Router: Send + Sync {
    /// Never blocks.
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>);

    /// How many replicas have to answer such a request; 1 where nobody can say. ClientRequest only for the words of an error.
    fn required(&self, _need: &Need) -> u8 {
        1
    }
}

/// The way back to the clients. Cheap to clone.
#[derive(Clone, Default)]
pub struct Replies {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Connections, and closed ones whose requests are still in flight.
    table: RwLock<HashMap<u64, Arc<Outbox>>>,
    load: Load,
    last_connection: AtomicU64,
    closing: AtomicBool,
    /// `closing` was set.
    told: Notify,
    /// A connection was closed.
    closed: Notify,
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Until the listener is stopped.
    async fn until_closing(&self) {
        // From here on it is told, so nothing is missed between the look and the wait.
        let told = self.told.notified();
        if !self.is_closing() {
            told.await;
        }
    }

    fn outbox(&self, connection: u64) -> Option<Arc<Outbox>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&connection).cloned()
    }
}

impl Replies {
    /// Answers a request. The answer of one whose connection is gone is dropped.
    pub fn reply(&self, client: ClientRef, response: Result<Response, Error>) {
        self.reply_all(vec![(client, response)]);
    }

    /// Answers many at once; each connection is woken once.
    pub fn reply_all(&self, answers: Vec<(ClientRef, Result<Response, Error>)>) {
        let mut to_wake = Vec::new();
        let mut latest: Option<Arc<Outbox>> = None;
        for (client, response) in answers {
            if latest
                .as_ref()
                .is_none_or(|outbox| outbox.connection != client.connection)
            {
                latest = self.shared.outbox(client.connection);
            }
            if let Some(outbox) = &latest
                && outbox.answer(client.request, response, &self.shared.load)
            {
                to_wake.push(Arc::clone(outbox));
            }
        }
        // Only now, so that a task that wakes finds all of them.
        for outbox in to_wake {
            outbox.wake();
        }
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.shared.load.totals().requests
    }

    /// Requests that were refused because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        self.shared.load.totals().refused
    }

    /// Open connections.
    pub fn connected(&self) -> usize {
        self.shared.load.connections.used()
    }

    /// Lets nothing in any longer; connections close once their last answer is out. Waits for that, up to `limit`.
    async fn drain(&self, limit: Duration) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.told.notify_waiters();
        for outbox in self
            .shared
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            outbox.wake();
        }
        let all_closed = async {
            loop {
                let closed = self.shared.closed.notified();
                if self.connected() == 0 {
                    return;
                }
                closed.await;
            }
        };
        // What is left then is cut off.
        let _cut_off = tokio::time::timeout(limit, all_closed).await;
    }

    fn open(&self, limits: Limits) -> Option<Open> {
        if !self.shared.load.connections.try_take(1, limits.connections) {
            return None;
        }
        let connection = self.shared.last_connection.fetch_add(1, Ordering::Relaxed) + 1;
        let outbox = Arc::new(Outbox::new(connection, limits));
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(connection, Arc::clone(&outbox));
        Some(Open {
            replies: self.clone(),
            outbox,
            closed: false,
        })
    }
}

/// A connection's place in the books. Given back on every way out, the end of its task's life included.
struct Open {
    replies: Replies,
    outbox: Arc<Outbox>,
    closed: bool,
}

impl Open {
    /// The socket is closed.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.outbox.end(&self.replies.shared.load);
            self.replies.shared.load.connections.give_back(1);
            self.replies.shared.closed.notify_waiters();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.close();
        let shared = &self.replies.shared;
        self.outbox.forget(&shared.load);
        let mut table = shared.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(&self.outbox.connection);
    }
}

/// The listener actor. Supervise it and restart it: it needs nothing but its arguments.
pub struct Listener;

/// What a listener needs.
#[derive(Clone)]
pub struct Arguments {
    /// Bound already, so that its port is known.
    pub socket: Arc<std::net::TcpListener>,
    /// Who to say we are.
    pub identity: Identity,
    /// What to let in.
    pub limits: Limits,
    /// Where requests go.
    pub router: Arc<dyn Router>,
    /// Where answers come from.
    pub replies: Replies,
}

/// Messages to the listener actor.
#[derive(Debug)]
pub enum ListenerMessage {
    /// The accept task ended, which it never should.
    AcceptEnded(String),
}

impl ractor::Message for ListenerMessage {}

/// The accept task of a listener, and what it serves.
pub struct Accepting {
    task: JoinHandle<()>,
    replies: Replies,
}

impl Actor for Listener {
    type Msg = ListenerMessage;
    type State = Accepting;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ListenerMessage>,
        arguments: Arguments,
    ) -> Result<Accepting, ActorProcessingErr> {
        let socket = arguments.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let replies = arguments.replies.clone();
        let task = tokio::spawn(async move {
            let reason = accept(socket, arguments).await;
            let _ = myself.cast(ListenerMessage::AcceptEnded(reason));
        });
        Ok(Accepting { task, replies })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerMessage>,
        message: ListenerMessage,
        _accepting: &mut Accepting,
    ) -> Result<(), ActorProcessingErr> {
        let ListenerMessage::AcceptEnded(reason) = message;
        Err(reason.into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ListenerMessage>,
        accepting: &mut Accepting,
    ) -> Result<(), ActorProcessingErr> {
        accepting.replies.drain(DRAIN).await;
        accepting.task.abort();
        Ok(())
    }
}

/// Accepts until the socket fails for good. Dropping it ends the connections.
async fn accept(socket: TcpListener, arguments: Arguments) -> String {
    let mut connections = JoinSet::new();
    let mut turned_away = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            Some(_) = turned_away.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let arguments = arguments.clone();
                let refusal = if arguments.replies.shared.is_closing() {
                    Error::Closed("the node is stopping: ask another one".to_owned())
                } else if let Some(open) = arguments.replies.open(arguments.limits) {
                    connections.spawn(serve(open, stream, peer, arguments));
                    continue;
                } else {
                    tracing::warn!(%peer, limit = arguments.limits.connections, "too many client connections");
                    Error::Overloaded(format!(
                        "{} has {} client connections, which is its limit: close some, or use another node",
                        arguments.identity.node, arguments.limits.connections
                    ))
                };
                if turned_away.len() < TURNED_AWAY {
                    turned_away.spawn(turn_away(stream, arguments, refusal));
                }
            }
            // Of one connection, or for want of file descriptors: the next may succeed.
            Err(error) => {
                tracing::warn!(%error, "a client connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve(mut open: Open, mut stream: TcpStream, peer: SocketAddr, arguments: Arguments) {
    let outbox = Arc::clone(&open.outbox);
    let served = async {
        prepare(&stream).map_err(|error| error.to_string())?;
        let greeting = greeting::greet(&mut stream, &arguments.identity, None);
        let decoder = tokio::select! {
            greeted = tokio::time::timeout(arguments.limits.hello, greeting) => {
                greeted.map_err(|_| "no hello in time".to_owned())??
            }
            // It has asked for nothing yet.
            () = arguments.replies.shared.until_closing() => return Err("the node is stopping".to_owned()),
        };
        connection::run(
            &outbox,
            &mut stream,
            decoder,
            &arguments.replies,
            &*arguments.router,
        )
        .await
    };
    if let Err(reason) = served.await {
        tracing::debug!(%peer, %reason, "client connection closed");
    }
    drop(stream);
    open.close();
    connection::outlive(&outbox, &arguments.replies, &*arguments.router).await;
}

/// Tells a connection why it cannot stay.
async fn turn_away(mut stream: TcpStream, arguments: Arguments, refusal: Error) {
    let words = greeting::greet(&mut stream, &arguments.identity, Some(refusal));
    // Whether it has heard them is its own business.
    let _unheard = tokio::time::timeout(TURNING_AWAY, words).await;
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
