//! The client on real sockets: a thin asynchronous shell around [`ClientCore`].
//!
//! The [driver](self::driver) owns the core and all sockets, and whoever waits for an answer drives it. [`Client`] is a handle to
//! it: cheap to clone, usable from any thread. [`Client::connect`] is for tasks of Tokio, one of which then drives;
//! [`Client::open`] is for threads that block and for other event loops, which drive by themselves.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_core::error::Error> {
//! use quorate_client::{Client, How};
//! use std::time::Duration;
//!
//! let client = Client::connect(vec!["127.0.0.1:7400".to_owned()], Duration::from_secs(5)).await?;
//! let users = client.keyspace("users").await?;
//! users.put("user-123".try_into()?, "...", &How::default()).await?;
//! let entry = users.get("user-123".try_into()?, &How::default()).await?;
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
mod pipeline;
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
pub use consensus::{Consensus, Found, LogPage, RecordPage};
pub use driver::Driver;
pub use event_loop::EventLoop;
pub use keyspace::{How, Keyspace, Scan, ScanRange};
use spans::SpanRing;
pub use spans::SpanSink;
pub use threads::block_on;

use crate::core::{CallOptions, ClientConfig, ClientCore, Outcome};

/// How a client connects, and what it keeps.
#[derive(Clone)]
pub struct ConnectOptions {
    /// How long to try, in all.
    pub timeout: Duration,
    /// The cluster it expects; `None` takes the first that answers.
    pub cluster: Option<ClusterId>,
    /// Empty while there is no authentication.
    pub credentials: Bytes,
    /// How many finished spans it keeps for [`Client::spans`].
    pub spans: usize,
    /// Is given every finished span as well, for export. Must not block.
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

/// A connection to a cluster. Clones share it; it ends with [`Client::close`], or once the last clone is dropped. A task of
/// Tokio that drives it finishes what is in flight before.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    spans: Arc<SpanRing>,
}

/// What all clones of a client share.
struct Handle(Driver);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.0.abandon();
    }
}

/// An answer, with how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// From the call to the answer.
    pub elapsed: Duration,
    /// Who answered.
    pub node: Option<NodeId>,
    /// The boot of that node.
    pub boot: Option<BootId>,
    /// How often the request was sent.
    pub attempts: u8,
    /// Its trace, when it was sampled.
    pub trace_id: Option<u128>,
}

impl<T> Reply<T> {
    /// Another answer that came about in the same way.
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
    /// Connects to the cluster that some of these endpoints (`host:port`) belong to.
    ///
    /// Must be called within a Tokio runtime, which then carries the client.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for something that is not an endpoint; [`Error::Refused`] when a node refused, and
    /// [`Error::ConnectionLost`] when none answered, both naming the endpoints and the reasons.
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
    /// As [`Client::connect`].
    pub async fn connect_with(endpoints: Vec<String>, options: ConnectOptions) -> Result<Client, Error> {
        let opening = Client::open(endpoints, options)?;
        task::spawn(opening.driver())
            .map_err(|error| Error::Overloaded(format!("the runtime cannot watch the client: {error}")))?;
        opening.await
    }

    /// Begins to connect. Nothing happens before somebody drives: [`Driver::block_on`], or an [`EventLoop`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for something that is not an endpoint, [`Error::Overloaded`] when the system gives no
    /// descriptors.
    pub fn open(endpoints: Vec<String>, options: ConnectOptions) -> Result<Opening, Error> {
        for endpoint in &endpoints {
            check_endpoint(endpoint)?;
        }
        let config = ClientConfig {
            cluster: options.cluster,
            credentials: options.credentials,
            ..ClientConfig::new(endpoints, random()?)
        };
        let late = Error::ConnectionLost(format!(
            "no node at {} has described the cluster within {} ms: check that nodes run there, or raise the timeout",
            config.endpoints.join(", "),
            options.timeout.as_millis()
        ));
        let core = ClientCore::new(config)?;
        let (opened, answer) = oneshot::channel();
        let spans = Arc::new(SpanRing::new(options.spans, options.span_sink));
        let rng = rng_from_seed(random()?);
        let driver = Driver::new(core, rng, opened, options.timeout, late, Arc::clone(&spans))?;
        let handle = Arc::new(Handle(driver));
        Ok(Opening {
            client: Client { handle, spans },
            answer,
        })
    }

    /// What drives this client.
    pub fn driver(&self) -> &Driver {
        &self.handle.0
    }

    /// Asks for something. The request is under way when this returns; await the answer. Dropping the [`Call`] does
    /// not take the request back.
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

    /// The spans of a trace that this client itself has finished and still keeps.
    pub fn spans(&self, trace_id: u128) -> Vec<Span> {
        self.spans.of(trace_id)
    }

    /// Ends all connections, now. What is in flight fails with [`Error::Closed`], or [`Error::OutcomeUnknown`] where a
    /// node may have seen a write.
    pub fn close(&self) {
        self.driver().0.close();
    }

    /// Waits until the client is closed, its sockets included.
    pub async fn closed(&self) {
        self.driver().0.ended().await;
    }

    /// [`Client::call`], with an answer that `take` finds in the response.
    async fn ask<T>(
        &self,
        request: Request,
        options: CallOptions,
        take: impl FnOnce(Response) -> Option<T>,
    ) -> Result<Reply<T>, Error> {
        reply(self.call(request, options).await, take)
    }
}

/// The answer of the expected kind.
fn reply<T>(outcome: Outcome, take: impl FnOnce(Response) -> Option<T>) -> Result<Reply<T>, Error> {
    let value = take(outcome.result?).ok_or_else(|| {
        Error::Refused(
            "the node answered another question than it was asked: it is not a Quorate node".to_owned(),
        )
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

/// The answer to a [`Client::call`], when it has come.
#[derive(Debug)]
pub struct Call {
    receiver: oneshot::Receiver<Outcome>,
    /// What to say when the driver is gone: whether a write may have been sent.
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
pub struct Opening {
    client: Client,
    answer: oneshot::Receiver<Result<(), Error>>,
}

impl Opening {
    /// What drives the client.
    pub fn driver(&self) -> &Driver {
        self.client.driver()
    }
}

impl Future for Opening {
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
