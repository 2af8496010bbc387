//! Connecting, and what is asked about a cluster and its nodes. Arguments of Python are copied before a future is made, so that
//! it holds nothing of Python.

use quorate_client::shell::Driver;
use quorate_client::{CallOptions, ConnectOptions};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::Request;
use serde::Serialize;

use crate::answers::Each;
use crate::documents::Document;
use crate::requests::{duration, plain};
use crate::sampling::Sampling;

/// A connected client and its sampling.
type Opened = (quorate_client::Client, Sampling);

/// A new client, once it has reached the cluster, and what drives it until then.
pub(crate) fn open(
    endpoints: Vec<String>,
    timeout: f64,
    secret: Option<String>,
) -> Result<(Driver, impl Future<Output = Result<Opened, Error>> + Send + use<>), Error> {
    let sampling = Sampling::from_environment()?;
    let options = ConnectOptions {
        timeout: duration(timeout),
        credentials: secret.unwrap_or_default().into(),
        span_sink: sampling.sink(),
        ..ConnectOptions::default()
    };
    let opening = quorate_client::Client::open(endpoints, options)?;
    let driver = opening.driver().clone();
    Ok((driver, async move { Ok((opening.await?, sampling)) }))
}

/// What a node tells about the cluster.
pub(crate) async fn describe(
    client: quorate_client::Client,
    request: Request,
    timeout: f64,
) -> Result<Document, Error> {
    Document::of(client.call(request, plain(timeout)).await)
}

/// The same question to each of these nodes.
pub(crate) async fn ask(
    client: quorate_client::Client,
    nodes: Vec<u16>,
    question: Request,
    timeout: f64,
) -> Result<Vec<Each<Document>>, Error> {
    let call = |node: &u16| (Ok(question.clone()), plain(timeout).on(NodeId(*node)));
    let calls = nodes.iter().map(call).collect();
    let answers = client.call_each(calls, Document::of).await;
    Ok(answers.into_iter().map(Each).collect())
}

/// The same, asked of this node only, if one is named.
pub(crate) fn on(options: CallOptions, node: Option<u16>) -> CallOptions {
    CallOptions {
        node: node.map(NodeId),
        ..options
    }
}

/// An answer as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::invalid(format!("this answer cannot be shown: {error}")))
}
