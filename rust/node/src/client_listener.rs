//! The client listener: the node's side of the client protocol.
//!
//! ```text
//! Listener (ractor actor, restartable: it holds no state that matters)
//!   └─ accept task ── one task per connection: hello, then frames in ─▶ [`Router`]
//!                                              answers out ◀─ [`Replies`]
//! ```
//! A connection's task decodes all frames that have arrived, admits them, and dispatches them as one batch. Roles encode
//! responses into the connection's outbox; the task is woken once and writes all pending bytes.
//!
//! Admission happens only here: every admitted request is answered, which bounds every mailbox behind the listener
//! ([`quorate_protocol::admission`]). Requests beyond the limits fail with [`Error::Overloaded`] immediately, before they
//! have any effect. A request counts until it is answered, even if its connection has closed in the meantime.
//!
//! A client cannot make the node buffer more than the limits: a connection that sends a malformed frame is closed at its
//! first byte; a large request waits for room before it is read, and must then arrive before a timeout; no more requests
//! are read from a client that does not read its responses, and eventually its connection is closed.
//!
//! A listener that is stopped drains the admitted requests for up to [`DRAIN`], and rejects later ones with
//! [`Error::Closed`], so that a graceful stop leaves clients without unknown outcomes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quorate_core::error::Error;
use quorate_protocol::api::Response;
use quorate_protocol::role::ClientRef;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub use self::dispatch::Router;
pub use self::greeting::Identity;
pub use self::limits::Limits;
use self::limits::Load;
use self::outbox::Outbox;

mod connection;
mod dispatch;
mod greeting;
mod limits;
mod outbox;
#[cfg(test)]
mod tests;

/// How long a stopped listener waits for the responses of admitted requests. Short, since it delays the node's stop.
pub const DRAIN: Duration = Duration::from_millis(250);
/// The most concurrent rejections of connections beyond the limit; further connections are closed without a response.
const MAX_REJECTIONS: usize = 64;
/// How long a rejected connection may take for the handshake that carries the error.
const REJECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The keepalive time, after which a vanished client host is detected.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Responds to clients. Cheap to clone.
#[derive(Clone, Default)]
pub struct Replies {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Open connections, and closed ones with requests in flight.
    table: RwLock<HashMap<u64, Arc<Outbox>>>,
    load: Load,
    last_connection: AtomicU64,
    closing: AtomicBool,
    /// Notified when `closing` is set.
    close_requested: Notify,
    /// Notified when a connection is closed.
    closed: Notify,
}

impl Shared {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits until the listener is stopped.
    async fn until_closing(&self) {
        // Registered before the check, so that no notification is missed.
        let requested = self.close_requested.notified();
        if !self.is_closing() {
            requested.await;
        }
    }

    fn outbox(&self, connection: u64) -> Option<Arc<Outbox>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&connection).cloned()
    }
}

impl Replies {
    /// Responds to a request. The response is dropped if the connection is closed.
    pub fn reply(&self, client: ClientRef, response: Result<Response, Error>) {
        self.reply_all(vec![(client, response)]);
    }

    /// Responds to many requests; each connection is woken once.
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
        // Last, so that a woken task finds all responses.
        for outbox in to_wake {
            outbox.wake();
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.load.totals().requests
    }

    /// Requests rejected as overload since the start.
    pub fn refused(&self) -> u64 {
        self.shared.load.totals().rejected
    }

    /// Open connections.
    pub fn connected(&self) -> usize {
        self.shared.load.connections.used()
    }

    /// Rejects further requests and waits up to `limit` until all connections have written their last response and closed.
    async fn drain(&self, limit: Duration) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.close_requested.notify_waiters();
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
        // Remaining connections are aborted.
        let _timed_out = tokio::time::timeout(limit, all_closed).await;
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

/// The registration of a connection. Released on every exit path, including the abort of its task.
struct Open {
    replies: Replies,
    outbox: Arc<Outbox>,
    closed: bool,
}

impl Open {
    /// The socket was closed.
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

/// The listener actor. It has no state beyond its arguments, so a supervisor can restart it.
pub struct Listener;

/// The arguments of a listener.
#[derive(Clone)]
pub struct Arguments {
    /// The bound socket.
    pub socket: Arc<std::net::TcpListener>,
    /// The node's identity, sent to clients.
    pub identity: Identity,
    /// The limits of admission.
    pub limits: Limits,
    /// The receiver of requests.
    pub router: Arc<dyn Router>,
    /// The source of responses.
    pub replies: Replies,
}

/// Messages to the listener actor.
#[derive(Debug)]
pub enum ListenerMessage {
    /// The accept task ended unexpectedly.
    AcceptEnded(String),
}

impl ractor::Message for ListenerMessage {}

/// The accept task of a listener, and its responses.
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

/// Accepts connections until the socket fails. Dropping the future closes the connections.
async fn accept(socket: TcpListener, arguments: Arguments) -> String {
    let mut connections = JoinSet::new();
    let mut rejections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            Some(_) = rejections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let arguments = arguments.clone();
                let refusal = if arguments.replies.shared.is_closing() {
                    Error::Closed("the node is stopping: use another node".to_owned())
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
                if rejections.len() < MAX_REJECTIONS {
                    rejections.spawn(reject(stream, arguments, refusal));
                }
            }
            // A single connection failed, or there are no file descriptors: the next one may succeed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client connection");
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
                        greeted.map_err(|_| "timed out waiting for the hello".to_owned())??
                    }
        // It has no requests yet.
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
    connection::drain(&outbox, &arguments.replies, &*arguments.router).await;
}

/// Rejects a connection with an error.
async fn reject(mut stream: TcpStream, arguments: Arguments, refusal: Error) {
    let rejection = greeting::greet(&mut stream, &arguments.identity, Some(refusal));
    // The client may not read it.
    let _unread = tokio::time::timeout(REJECTION_TIMEOUT, rejection).await;
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
