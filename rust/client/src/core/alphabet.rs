//! What can happen to a [`ClientCore`](super::ClientCore), and what it can ask for.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::telemetry::{Span, TraceContext};

/// What a client is created with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// Where to find the first nodes, `host:port`; the others are learned from them.
    pub endpoints: Vec<String>,
    /// Names this client in its write ids: random, drawn anew for each client.
    pub client_id: u64,
    /// The cluster it expects; `None` takes the first that answers and stays with it.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
}

impl ClientConfig {
    /// A client of whatever cluster is at these endpoints.
    pub fn new(endpoints: Vec<String>, client_id: u64) -> Self {
        ClientConfig {
            endpoints,
            client_id,
            cluster: None,
            credentials: Bytes::new(),
        }
    }
}

/// Whether an operation is traced. Decided here, at the client, for the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trace {
    /// No spans anywhere.
    #[default]
    Off,
    /// A trace of its own.
    New,
    /// A span of the caller's trace.
    Child(TraceContext),
}

/// How an operation is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallOptions {
    /// From its submission to the last moment at which it may succeed.
    pub timeout: Duration,
    /// Whether it is traced.
    pub trace: Trace,
    /// Ask this node and no other.
    pub node: Option<NodeId>,
}

impl Default for CallOptions {
    /// Five seconds, untraced, whichever node is best.
    fn default() -> Self {
        CallOptions {
            timeout: Duration::from_secs(5),
            trace: Trace::Off,
            node: None,
        }
    }
}

impl CallOptions {
    /// Untraced, whichever node is best.
    pub fn timeout(timeout: Duration) -> Self {
        CallOptions {
            timeout,
            ..CallOptions::default()
        }
    }

    /// The same, asked of this node only.
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
    /// The node's answer, or the client's own error.
    pub result: Result<Response, Error>,
    /// Who answered, if anyone did.
    pub node: Option<NodeId>,
    /// The boot of the node that answered.
    pub boot: Option<BootId>,
    /// How often it was sent.
    pub attempts: u8,
    /// From its submission.
    pub elapsed: Duration,
    /// Its trace, when it was sampled.
    pub trace_id: Option<u128>,
}

/// What can happen to a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientEvent {
    /// It exists now. The first event, once: it dials its endpoints.
    Start,
    /// The application wants something done. The answer is [`ClientEffect::Complete`] with the same `op`.
    Submit {
        /// Chosen by the shell: above 0, and unique among the operations in flight.
        op: u64,
        /// What to ask. The write id of a put is filled in by the client.
        request: Request,
        /// How.
        options: CallOptions,
    },
    /// A connection that it asked for is established; nothing was sent on it yet.
    Connected {
        /// Which.
        connection: u64,
    },
    /// Bytes came.
    Received {
        /// On which connection.
        connection: u64,
        /// The next ones of its stream.
        bytes: Bytes,
    },
    /// A connection could not be established, or broke.
    Disconnected {
        /// Which. It is never named again.
        connection: u64,
        /// How many bytes of the [`ClientEffect::Send`]s may have left this machine; `u64::MAX` if that is not known.
        /// A request that did not leave whole was certainly not carried out.
        written: u64,
        /// Why: [`Error::ConnectionRefused`] if nobody listens there, or else [`Error::ConnectionLost`].
        error: Error,
    },
    /// The time that was asked for with [`ClientEffect::SetTimer`] has come. Too early does no harm.
    Timer,
    /// Ends every operation and connection. The last event.
    Close,
}

/// What a client can ask its shell for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientEffect {
    /// Establish a connection, then say so.
    Connect {
        /// Its name from now on; never used twice.
        connection: u64,
        /// `host:port`.
        address: String,
    },
    /// Send these bytes, after those asked for before.
    Send {
        /// On which connection.
        connection: u64,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection. No event about it is expected after this; one that is under way does no harm.
    Disconnect {
        /// Which.
        connection: u64,
    },
    /// An operation is finished.
    Complete {
        /// Which.
        op: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// Wake the client with [`ClientEvent::Timer`] at this time; replaces the one before.
    SetTimer {
        /// When.
        at: Instant,
    },
    /// Once: the client knows the cluster and its nodes, or could not reach any endpoint. In the latter case it goes
    /// on trying.
    Opened(Result<(), Error>),
    /// A finished span of a sampled operation.
    Span(Box<Span>),
}
