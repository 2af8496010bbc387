//! Events and effects of a [`ClientCore`](super::ClientCore), and the options of its operations.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::telemetry::{Span, TraceContext};

/// The configuration of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// Addresses of the first nodes, `host:port`; the others are discovered from them.
    pub endpoints: Vec<String>,
    /// Identifies this client in its write ids: random, different for each client.
    pub client_id: u64,
    /// The expected cluster; `None` accepts the first that responds, and no other afterwards.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
}

impl ClientConfig {
    /// A client of the cluster at these endpoints, whatever its id.
    pub fn new(endpoints: Vec<String>, client_id: u64) -> Self {
        ClientConfig {
            endpoints,
            client_id,
            cluster: None,
            credentials: Bytes::new(),
        }
    }
}

/// Whether an operation is traced. The client decides for the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trace {
    /// No spans anywhere.
    #[default]
    Off,
    /// A new trace.
    New,
    /// A span of the caller's trace.
    Child(TraceContext),
}

/// The options of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallOptions {
    /// From the submission to the deadline.
    pub timeout: Duration,
    /// Whether it is traced.
    pub trace: Trace,
    /// Send the request to this node only.
    pub node: Option<NodeId>,
}

impl Default for CallOptions {
    /// Five seconds, untraced, any node.
    fn default() -> Self {
        CallOptions {
            timeout: Duration::from_secs(5),
            trace: Trace::Off,
            node: None,
        }
    }
}

impl CallOptions {
    /// Untraced, any node.
    pub fn timeout(timeout: Duration) -> Self {
        CallOptions {
            timeout,
            ..CallOptions::default()
        }
    }

    /// The same, sent to this node only.
    pub fn on(self, node: NodeId) -> Self {
        CallOptions {
            node: Some(node),
            ..self
        }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// The node's response, or the client's own error.
    pub result: Result<Response, Error>,
    /// The node that responded, if any.
    pub node: Option<NodeId>,
    /// The boot of that node.
    pub boot: Option<BootId>,
    /// The number of attempts.
    pub attempts: u8,
    /// From its submission.
    pub elapsed: Duration,
    /// Its trace, if it was sampled.
    pub trace_id: Option<u128>,
}

/// An event of a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientEvent {
    /// The first event, once: the client dials its endpoints.
    Start,
    /// The application submits an operation, which ends with a [`ClientEffect::Complete`] of the same `op`.
    Submit {
        /// Chosen by the shell: above 0, and unique among the operations in flight.
        op: u64,
        /// The request. The client fills in the write id of a put.
        request: Request,
        /// Its options.
        options: CallOptions,
    },
    /// A requested connection is established; nothing was sent on it yet.
    Connected {
        /// Its number.
        connection: u64,
    },
    /// Bytes arrived.
    Received {
        /// The connection.
        connection: u64,
        /// The next ones of its stream.
        bytes: Bytes,
    },
    /// A connection could not be established, or broke.
    Disconnected {
        /// The connection. Its number is not used again.
        connection: u64,
        /// How many bytes of the [`ClientEffect::Send`]s may have left this machine; `u64::MAX` if that is not known.
        /// A request that was not written completely was certainly not executed.
        written: u64,
        /// The reason: [`Error::ConnectionRefused`] if the address refuses connections, otherwise [`Error::ConnectionLost`].
        error: Error,
    },
    /// The time of the last [`ClientEffect::SetTimer`] has passed. An early timer is harmless.
    Timer,
    /// Ends every operation and connection. The last event.
    Close,
}

/// An effect that a client requests from its shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientEffect {
    /// Establish a connection; the result is [`ClientEvent::Connected`] or [`ClientEvent::Disconnected`].
    Connect {
        /// Its number; never used twice.
        connection: u64,
        /// `host:port`.
        address: String,
    },
    /// Send these bytes, in the order of these effects.
    Send {
        /// The connection.
        connection: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Close a connection. Later events about it are ignored.
    Disconnect {
        /// Its number.
        connection: u64,
    },
    /// An operation is finished.
    Complete {
        /// Its number.
        op: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Wake the client with [`ClientEvent::Timer`] at this time; replaces the previous timer.
    SetTimer {
        /// The time.
        at: Instant,
    },
    /// Once: the client knows the cluster and its nodes, or could not reach any endpoint. In the latter case it keeps trying.
    Opened(Result<(), Error>),
    /// A finished span of a sampled operation.
    Span(Box<Span>),
}
