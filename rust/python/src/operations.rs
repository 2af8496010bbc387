//! Every operation of the client, written once: a future that Python blocks on or awaits. Arguments of Python are copied
//! before the future is made, so that it holds nothing of Python.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::{CallOptions, ConnectOptions, Outcome};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::Keyspace;
use serde::Serialize;

use crate::answers::{Course, Each, Page, RawEntry, RawWrite};
use crate::client::Client;
use crate::context::Context;
use crate::requests::{duration, get_request, get_requests, plain, put_request, put_requests};
use crate::sampling::Sampling;

/// A new client.
pub(crate) async fn open(
    endpoints: Vec<String>,
    timeout: f64,
    secret: Option<String>,
) -> Result<Client, Error> {
    let sampling = Sampling::from_environment()?;
    let options = ConnectOptions {
        timeout: duration(timeout),
        credentials: secret.unwrap_or_default().into(),
        span_sink: sampling.sink(),
        ..ConnectOptions::default()
    };
    let client = quorate_client::Client::connect_with(endpoints, options).await?;
    Ok(Client::new(client, sampling))
}

impl Client {
    /// A put, or a delete where there is no value.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn putting(
        &self,
        keyspace: u32,
        key: &[u8],
        value: Option<&[u8]>,
        context: Option<&Bound<'_, Context>>,
        level: Option<&str>,
        timeout: f64,
        trace: bool,
    ) -> Result<impl Future<Output = Result<RawWrite, Error>> + Send + use<>, Error> {
        let request = put_request(keyspace, key, value, context, level)?;
        let (client, options) = (self.here()?, self.options(timeout, trace));
        Ok(async move { write_answer(client.call(request, options).await) })
    }

    /// A get, of this node if one is named.
    pub(crate) fn getting(
        &self,
        keyspace: u32,
        key: &[u8],
        level: Option<&str>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> Result<impl Future<Output = Result<RawEntry, Error>> + Send + use<>, Error> {
        let request = get_request(keyspace, key, level)?;
        let (client, options) = (self.here()?, on(self.options(timeout, trace), node));
        Ok(async move { read_answer(client.call(request, options).await) })
    }

    /// Many puts, each with an outcome of its own.
    pub(crate) fn putting_many(
        &self,
        keyspace: u32,
        items: &[(Bound<'_, PyBytes>, Bound<'_, PyBytes>)],
        level: Option<&str>,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Vec<Each<RawWrite>>, Error>> + Send + use<>, Error> {
        let requests = put_requests(keyspace, items, level)?;
        self.batch(requests, timeout, None, write_answer)
    }

    /// Many gets, each with an outcome of its own.
    pub(crate) fn getting_many(
        &self,
        keyspace: u32,
        keys: &[Bound<'_, PyBytes>],
        level: Option<&str>,
        timeout: f64,
        node: Option<u16>,
    ) -> Result<impl Future<Output = Result<Vec<Each<RawEntry>>, Error>> + Send + use<>, Error> {
        let requests = get_requests(keyspace, keys, level)?;
        self.batch(requests, timeout, node, read_answer)
    }

    fn batch<T: Send + 'static>(
        &self,
        requests: Vec<Result<Request, Error>>,
        timeout: f64,
        node: Option<u16>,
        answer: fn(Outcome) -> Result<T, Error>,
    ) -> Result<impl Future<Output = Result<Vec<Each<T>>, Error>> + Send + use<T>, Error> {
        let call = |request| (request, on(self.options(timeout, false), node));
        let calls = requests.into_iter().map(call).collect();
        let client = self.here()?;
        Ok(async move { Ok(each(client.call_each(calls, answer).await)) })
    }

    /// One page of a scan.
    pub(crate) fn scanning(
        &self,
        request: Result<Request, Error>,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Page, Error>> + Send + use<>, Error> {
        let (request, client, options) = (request?, self.here()?, self.options(timeout, false));
        Ok(async move { page(client.call(request, options).await) })
    }

    /// What Python reads as JSON.
    pub(crate) fn describing(
        &self,
        request: Result<Request, Error>,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<String, Error>> + Send + use<>, Error> {
        let (request, client) = (request?, self.here()?);
        Ok(async move { description(client.call(request, plain(timeout)).await) })
    }

    /// The same question to each of these nodes.
    pub(crate) fn asking(
        &self,
        nodes: &[u16],
        question: Result<Request, Error>,
        timeout: f64,
    ) -> Result<impl Future<Output = Result<Vec<Each<String>>, Error>> + Send + use<>, Error> {
        let question = question?;
        let call = |node: &u16| (Ok(question.clone()), plain(timeout).on(NodeId(*node)));
        let calls = nodes.iter().map(call).collect();
        let client = self.here()?;
        Ok(async move { Ok(each(client.call_each(calls, description).await)) })
    }
}

/// The same, asked of this node only, if one is named.
pub(crate) fn on(options: CallOptions, node: Option<u16>) -> CallOptions {
    CallOptions {
        node: node.map(NodeId),
        ..options
    }
}

fn each<T>(answers: Vec<Result<T, Error>>) -> Vec<Each<T>> {
    answers.into_iter().map(Each).collect()
}

fn course(outcome: &Outcome) -> Course {
    Course {
        seconds: outcome.elapsed.as_secs_f64(),
        trace_id: outcome.trace_id,
    }
}

fn write_answer(outcome: Outcome) -> Result<RawWrite, Error> {
    let course = course(&outcome);
    match outcome.result? {
        Response::Written(written) => Ok(RawWrite::new(written, course)),
        _ => Err(unexpected()),
    }
}

fn read_answer(outcome: Outcome) -> Result<RawEntry, Error> {
    let course = course(&outcome);
    match outcome.result? {
        Response::Entry(entry) => Ok(RawEntry::new(entry, course)),
        _ => Err(unexpected()),
    }
}

fn page(outcome: Outcome) -> Result<Page, Error> {
    let course = course(&outcome);
    match outcome.result? {
        Response::Page(page) => Ok(Page { page, course }),
        _ => Err(unexpected()),
    }
}

/// A keyspace, and whether it is new.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    keyspace: Keyspace,
    created: bool,
}

/// An answer that Python reads as JSON, or the metrics as they are.
fn description(outcome: Outcome) -> Result<String, Error> {
    match outcome.result? {
        Response::Keyspace { keyspace, created } => json(&Created { keyspace, created }),
        Response::Keyspaces(keyspaces) => json(&keyspaces),
        Response::Membership(membership) => json(&membership),
        Response::Status(status) => json(&status),
        Response::Events(events) => json(&events),
        Response::Spans(spans) => json(&spans),
        Response::Metrics(text) => Ok(text),
        Response::Groups(claims) => json(&claims),
        Response::Faults(faults) => json(&faults),
        Response::Done => Ok(String::new()),
        _ => Err(unexpected()),
    }
}

/// An answer as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::invalid(format!("this answer cannot be shown: {error}")))
}

fn unexpected() -> Error {
    Error::Refused(
        "the node answered another question than it was asked: it is not a Quorate node".to_owned(),
    )
}
