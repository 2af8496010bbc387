//! The client listener: the node's side of the client protocol.
//!
//! ```text
//! Listener (ractor actor, restartable: it holds no state that matters)
//!   └─ accept task ── one task per connection: hello, then frames in ─▶ [`Router`]
//!                                              answers out ◀─ [`Replies`]
//! ```
//! Admission happens here and nowhere else: whatever was let in is answered, and so every mailbox behind the listener
//! is bounded by [`Limits`]. Beyond them a request is answered [`Error::Overloaded`] at once, before anything is done
//! about it. A connection that sends garbage is closed; one that does not read its answers is closed when too many
//! bytes wait for it. Nothing that a stranger sends makes the node keep more than a few kilobytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_protocol::api::{RequestFrame, Response};
use quorate_protocol::error::Error;
use quorate_protocol::ids::{BootId, ClusterId, NodeId};
use quorate_protocol::role::ClientRef;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::connection::Connection;

mod connection;
#[cfg(test)]
mod tests;

/// What a node lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; a further one is closed.
    pub connections: usize,
    /// Requests in flight on all connections.
    pub requests: usize,
    /// Bytes of requests in flight on all connections.
    pub request_bytes: usize,
    /// Requests in flight on one connection.
    pub connection_requests: usize,
    /// Bytes of answers that may wait for one connection to read them.
    pub unread_bytes: usize,
    /// How long a new connection may take for its hello.
    pub hello: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4_096,
            requests: 16_384,
            request_bytes: 256 << 20,
            connection_requests: 8_192,
            unread_bytes: 128 << 20,
            hello: Duration::from_secs(10),
        }
    }
}

/// Who the node says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This run of it.
    pub boot: BootId,
}

/// Takes the requests that were let in. Each must be answered once, through [`Replies`].
pub trait Router: Send + Sync {
    /// Never blocks.
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>);
}

/// Requests in flight, over all connections.
#[derive(Debug, Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    refused: AtomicU64,
}

/// The way back to the clients. Cheap to clone.
#[derive(Clone, Default)]
pub struct Replies {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    load: Load,
    last_connection: AtomicU64,
}

impl Replies {
    /// Answers a request. The answer of one whose connection is gone is dropped.
    pub fn reply(&self, client: ClientRef, response: Result<Response, Error>) {
        let connection = self.connections().get(&client.connection).cloned();
        if let Some(connection) = connection {
            connection.answer(client.request, response, &self.shared.load);
        }
    }

    /// Answers many at once; each connection is woken once.
    pub fn reply_all(&self, answers: Vec<(ClientRef, Result<Response, Error>)>) {
        let mut woken: BTreeMap<u64, Arc<Connection>> = BTreeMap::new();
        for (client, response) in answers {
            let connection = match woken.get(&client.connection) {
                Some(connection) => connection.clone(),
                None => match self.connections().get(&client.connection).cloned() {
                    Some(connection) => connection,
                    None => continue,
                },
            };
            connection.append(client.request, response, &self.shared.load);
            woken.insert(client.connection, connection);
        }
        for connection in woken.values() {
            connection.wake();
        }
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.shared.load.requests.load(Ordering::Relaxed)
    }

    /// Requests that were refused because there were too many, since the start.
    pub fn refused(&self) -> u64 {
        self.shared.load.refused.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connected(&self) -> usize {
        self.connections().len()
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, limits: Limits) -> Option<Arc<Connection>> {
        let mut connections = self.connections();
        if connections.len() >= limits.connections {
            return None;
        }
        let id = self.shared.last_connection.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection::new(id, limits));
        connections.insert(id, connection.clone());
        Some(connection)
    }

    fn close(&self, connection: &Connection) {
        self.connections().remove(&connection.id);
        connection.forget(&self.shared.load);
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

impl Actor for Listener {
    type Msg = ListenerMessage;
    type State = tokio::task::JoinHandle<()>;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ListenerMessage>,
        arguments: Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let socket = arguments.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        Ok(tokio::spawn(async move {
            let reason = accept(socket, arguments).await;
            let _ = myself.cast(ListenerMessage::AcceptEnded(reason));
        }))
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerMessage>,
        message: ListenerMessage,
        _accepting: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ListenerMessage::AcceptEnded(reason) = message;
        Err(reason.into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ListenerMessage>,
        accepting: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        accepting.abort();
        Ok(())
    }
}

/// Accepts until the socket fails for good. Dropping it ends the connections.
async fn accept(socket: TcpListener, arguments: Arguments) -> String {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(connection) = arguments.replies.open(arguments.limits) {
                    connections.spawn(serve(connection, stream, peer, arguments.clone()));
                } else {
                    tracing::warn!(%peer, limit = arguments.limits.connections, "too many client connections");
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

async fn serve(
    connection: Arc<Connection>,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    arguments: Arguments,
) {
    // Closes on every way out, the end of this task's life included.
    struct Close(Replies, Arc<Connection>);
    impl Drop for Close {
        fn drop(&mut self) {
            self.0.close(&self.1);
        }
    }
    let close = Close(arguments.replies.clone(), connection);
    if let Err(reason) = connection::run(&close.1, stream, &arguments).await {
        tracing::debug!(%peer, %reason, "client connection closed");
    }
}
