//! Connecting, and requests about a cluster and its nodes. Python arguments are copied before a future is created, so
//! that it holds no Python objects.

use quorate_client::shell::Driver;
use quorate_client::{CallOptions, ConnectOptions};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::Request;

use crate::answers::ItemResult;
use crate::documents::Document;
use crate::requests::{duration, plain};
use crate::sampling::Sampling;

/// A connected client and its sampling.
type Opened = (quorate_client::Client, Sampling);

/// A new client, once it has reached the cluster, and its driver until then.
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

/// A request about the cluster, with a document as its response.
pub(crate) async fn describe(
    client: quorate_client::Client,
    request: Request,
    timeout: f64,
) -> Result<Document, Error> {
    Document::of(client.call(request, plain(timeout)).await)
}

/// Sends the same request to each of these nodes.
pub(crate) async fn request_from_nodes(
    client: quorate_client::Client,
    nodes: Vec<u16>,
    request: Request,
    timeout: f64,
) -> Result<Vec<ItemResult<Document>>, Error> {
    let calls = nodes
        .into_iter()
        .map(|node| (request.clone(), plain(timeout).on(NodeId(node))));
    let answers = client.call_each(calls, Document::of).await;
    Ok(answers.into_iter().map(ItemResult).collect())
}

/// The same options, for this node only if one is given.
pub(crate) fn on(options: CallOptions, node: Option<u16>) -> CallOptions {
    CallOptions {
        node: node.map(NodeId),
        ..options
    }
}
