//! The client on real sockets: a thin asynchronous shell around [`ClientCore`].
//!
//! The [driver](self::driver) owns the core and all sockets; the callers that wait for responses drive it. [`Client`]
//! is a handle to it: cheap to clone, usable from any thread. [`Client::connect`] is for Tokio, where a task drives it;
//! [`Client::open`] is for blocking threads and for other event loops, which drive it themselves.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_core::error::Error> {
//! use quorate_client::{Client, OperationOptions};
//! use std::time::Duration;
//!
//! let client = Client::connect(vec!["127.0.0.1:7400".to_owned()], Duration::from_secs(5)).await?;
//! let users = client.keyspace("users").await?;
//! users.put("user-123".try_into()?, "...", &OperationOptions::default()).await?;
//! let entry = users.get("user-123".try_into()?, &OperationOptions::default()).await?;
//! assert_eq!(entry.value.versions.len(), 1);
//! # Ok(())
//! # }
//! ```

mod batch;
mod cluster;
mod consensus;
mod dial;
mod driver;
mod event_loop;
mod keyspace;
mod poller;
mod socket;
mod spans;
mod state;
mod task;
mod threads;
mod turns;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::rng_from_seed;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::telemetry::Span;
use tokio::sync::oneshot;

pub use cluster::EventCursor;
pub use consensus::{Consensus, LogPage, RecordPage, RecordRead};
pub use driver::Driver;
pub use event_loop::EventLoop;
pub use keyspace::{Keyspace, OperationOptions, Scan, ScanRange};
use spans::SpanRing;
pub use spans::SpanSink;
pub use threads::block_on;

use crate::core::{CallOptions, ClientConfig, ClientCore, Outcome};

/// The options of a client.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The connect timeout.
    pub timeout: Duration,
    /// The expected cluster; `None` accepts the first that responds.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
    /// The number of finished spans that it keeps for [`Client::spans`].
    pub spans: usize,
    /// Receives every finished span as well, for export. Must not block.
    pub span_sink: Option<SpanSink>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            timeout: Duration::from_secs(5),
            cluster: None,
            credentials: Bytes::new(),
            spans: 4096,
            span_sink: None,
        }
    }
}

/// A connection to a cluster. Clones share it; it ends with [`Client::close`], or once the last clone is dropped. A
/// Tokio task that drives it first completes the operations in flight.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    spans: Arc<SpanRing>,
}

/// The state that all clones of a client share.
struct Handle(Driver);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.0.abandon();
    }
}

/// The result of an operation, with its latency, node and trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// The result.
    pub value: T,
    /// From the call to the response.
    pub elapsed: Duration,
    /// The node that responded.
    pub node: Option<NodeId>,
    /// The boot of that node.
    pub boot: Option<BootId>,
    /// The number of attempts.
    pub attempts: u8,
    /// Its trace, if it was sampled.
    pub trace_id: Option<u128>,
}

impl<T> Reply<T> {
    /// Another result of the same operation.
    fn with<U>(&self, value: U) -> Reply<U> {
        Reply {
            value,
            elapsed: self.elapsed,
            node: self.node,
            boot: self.boot,
            attempts: self.attempts,
            trace_id: self.trace_id,
        }
    }
}

impl Client {
    /// Connects to the cluster at these endpoints (`host:port`), of which one reachable is enough.
    /// Must be called within a Tokio runtime, which then drives the client.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid endpoint; [`Error::Refused`] if a node rejected the client, and
    /// [`Error::ConnectionLost`] if none responded, both naming the endpoints and the reasons.
    pub async fn connect(endpoints: Vec<String>, timeout: Duration) -> Result<Client, Error> {
        let options = ConnectOptions {
            timeout,
            ..ConnectOptions::default()
        };
        Client::connect_with(endpoints, options).await
    }

    /// [`Client::connect`] with all options.
    ///
    /// # Errors
    /// Like [`Client::connect`].
    pub async fn connect_with(endpoints: Vec<String>, options: ConnectOptions) -> Result<Client, Error> {
        let connecting = Client::open(endpoints, options)?;
        task::spawn(connecting.driver())
            .map_err(|error| Error::Overloaded(format!("the runtime cannot watch the client: {error}")))?;
        connecting.await
    }

    /// Starts to connect. Nothing happens until the client is driven, by [`Driver::block_on`] or an [`EventLoop`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid endpoint, [`Error::Overloaded`] if the system has no file descriptors left.
    pub fn open(endpoints: Vec<String>, options: ConnectOptions) -> Result<Connecting, Error> {
        for endpoint in &endpoints {
            check_endpoint(endpoint)?;
        }
        let config = ClientConfig {
            cluster: options.cluster,
            credentials: options.credentials,
            ..ClientConfig::new(endpoints, random()?)
        };
        let timeout_error = Error::ConnectionLost(format!(
            "no node at {} has described the cluster within {} ms: check that nodes run there, or raise the timeout",
            config.endpoints.join(", "),
            options.timeout.as_millis()
        ));
        let core = ClientCore::new(config)?;
        let (opened, answer) = oneshot::channel();
        let spans = Arc::new(SpanRing::new(options.spans, options.span_sink));
        let rng = rng_from_seed(random()?);
        let driver = Driver::new(
            core,
            rng,
            opened,
            options.timeout,
            timeout_error,
            Arc::clone(&spans),
        )?;
        let handle = Arc::new(Handle(driver));
        Ok(Connecting {
            client: Client { handle, spans },
            answer,
        })
    }

    /// The driver of this client.
    pub fn driver(&self) -> &Driver {
        &self.handle.0
    }

    /// Submits a request; await its outcome. Dropping the [`Call`] does not cancel the request.
    ///
    /// The write id of a put and the session of a command are filled in.
    pub fn call(&self, request: Request, options: CallOptions) -> Call {
        let changes = !request.is_read();
        let (answer, receiver) = oneshot::channel();
        self.driver().0.call(request, options, answer);
        Call {
            receiver,
            unknown: changes,
        }
    }

    /// The finished spans of a trace that this client still keeps.
    pub fn spans(&self, trace_id: u128) -> Vec<Span> {
        self.spans.of(trace_id)
    }

    /// Closes all connections immediately. Operations in flight fail with [`Error::Closed`], or with
    /// [`Error::OutcomeUnknown`] if a node may have seen a write.
    pub fn close(&self) {
        self.driver().0.close();
    }

    /// Waits until the client is closed, its sockets included.
    pub async fn closed(&self) {
        self.driver().0.ended().await;
    }

    /// [`Client::call`], with a result that `decode` extracts from the response.
    async fn call_expecting<T>(
        &self,
        request: Request,
        options: CallOptions,
        decode: impl FnOnce(Response) -> Option<T>,
    ) -> Result<Reply<T>, Error> {
        reply(self.call(request, options).await, decode)
    }

    /// [`Client::call_each`], with results that `decode` extracts from the responses.
    async fn call_each_expecting<T>(
        &self,
        requests: impl IntoIterator<Item = Request>,
        options: CallOptions,
        decode: impl Fn(Response) -> Option<T>,
    ) -> Vec<Result<Reply<T>, Error>> {
        let calls = requests.into_iter().map(|request| (request, options));
        self.call_each(calls, |outcome| reply(outcome, &decode)).await
    }
}

/// The result in a response of the expected type.
fn reply<T>(outcome: Outcome, decode: impl FnOnce(Response) -> Option<T>) -> Result<Reply<T>, Error> {
    let value = decode(outcome.result?).ok_or_else(|| {
        Error::Refused("unexpected response type: not a Quorate node, or an incompatible version".to_owned())
    })?;
    Ok(Reply {
        value,
        elapsed: outcome.elapsed,
        node: outcome.node,
        boot: outcome.boot,
        attempts: outcome.attempts,
        trace_id: outcome.trace_id,
    })
}

/// The pending outcome of a [`Client::call`].
#[derive(Debug)]
pub struct Call {
    receiver: oneshot::Receiver<Outcome>,
    /// Whether it may write: its outcome is then unknown if the driver is gone.
    unknown: bool,
}

impl Future for Call {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let unknown = self.unknown;
        Pin::new(&mut self.receiver).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Outcome {
                result: Err(if unknown {
                    Error::OutcomeUnknown {
                        acked: 0,
                        required: 1,
                        reason: Some("the client is closed".to_owned()),
                    }
                } else {
                    Error::Closed("the client is closed: connect again".to_owned())
                }),
                node: None,
                boot: None,
                attempts: 0,
                elapsed: Duration::ZERO,
                trace_id: None,
            })
        })
    }
}

/// A client that is connecting.
pub struct Connecting {
    client: Client,
    answer: oneshot::Receiver<Result<(), Error>>,
}

impl Connecting {
    /// The driver of the client.
    pub fn driver(&self) -> &Driver {
        self.client.driver()
    }
}

impl Future for Connecting {
    type Output = Result<Client, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = |_| {
            Err(Error::Closed(
                "the client was closed while it connected: connect again".to_owned(),
            ))
        };
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            let opened = answer.unwrap_or_else(ended);
            opened.inspect_err(|_| self.client.close())?;
            Ok(self.client.clone())
        })
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), Error> {
    let well_formed = endpoint
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !well_formed {
        return Err(Error::invalid(format!(
            "endpoint {endpoint:?}: write host:port, for example 127.0.0.1:7400"
        )));
    }
    Ok(())
}

fn random() -> Result<u64, Error> {
    getrandom::u64()
        .map_err(|error| Error::invalid(format!("the operating system has no random bits: {error}")))
}
