//! The client. Every operation is written once, as a future; Python blocks on it or awaits it.

use pyo3::prelude::*;
use quorate_client::{CallOptions, ConnectOptions, Outcome};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::error::Error;
use quorate_protocol::ids::NodeId;
use serde::Serialize;

use crate::answers::{Course, Each, RawEntry, RawPage, RawWrite};
use crate::batch::{self, Call};
use crate::consensus::{self, Consensus};
use crate::context::Context;
use crate::errors::exception;
use crate::requests::{
    alter_request, create_request, drop_request, duration, faults_request, get_request, get_requests, plain,
    put_request, put_requests, question, scan_request,
};
use crate::runtime::{awaitable, wait};
use crate::sampling::Sampling;

/// A connection to a cluster.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Client {
    client: quorate_client::Client,
    sampling: Sampling,
    process: u32,
}

#[pymethods]
impl Client {
    #[staticmethod]
    fn connect(
        py: Python<'_>,
        endpoints: Vec<String>,
        timeout: f64,
        secret: Option<String>,
    ) -> PyResult<Client> {
        wait(py, open(endpoints, timeout, secret))
    }

    #[staticmethod]
    fn connect_async(
        py: Python<'_>,
        endpoints: Vec<String>,
        timeout: f64,
        secret: Option<String>,
    ) -> PyResult<Bound<'_, PyAny>> {
        awaitable(py, open(endpoints, timeout, secret))
    }

    #[allow(clippy::too_many_arguments)]
    fn put(
        &self,
        py: Python<'_>,
        keyspace: u32,
        key: &[u8],
        value: Option<&[u8]>,
        context: Option<&Bound<'_, Context>>,
        level: Option<&str>,
        timeout: f64,
        trace: bool,
    ) -> PyResult<RawWrite> {
        let request = put_request(keyspace, key, value, context, level)?;
        wait(py, write(self.here()?, request, self.options(timeout, trace)))
    }

    #[allow(clippy::too_many_arguments)]
    fn put_async<'py>(
        &self,
        py: Python<'py>,
        keyspace: u32,
        key: &[u8],
        value: Option<&[u8]>,
        context: Option<&Bound<'_, Context>>,
        level: Option<&str>,
        timeout: f64,
        trace: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = put_request(keyspace, key, value, context, level)?;
        awaitable(py, write(self.here()?, request, self.options(timeout, trace)))
    }

    #[allow(clippy::too_many_arguments)]
    fn get(
        &self,
        py: Python<'_>,
        keyspace: u32,
        key: &[u8],
        level: Option<&str>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> PyResult<RawEntry> {
        let request = get_request(keyspace, key, level)?;
        wait(
            py,
            read(self.here()?, request, on(self.options(timeout, trace), node)),
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn get_async<'py>(
        &self,
        py: Python<'py>,
        keyspace: u32,
        key: &[u8],
        level: Option<&str>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = get_request(keyspace, key, level)?;
        awaitable(
            py,
            read(self.here()?, request, on(self.options(timeout, trace), node)),
        )
    }

    fn put_many(
        &self,
        py: Python<'_>,
        keyspace: u32,
        items: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<Vec<Each<RawWrite>>> {
        let requests = put_requests(keyspace, &items, level)?;
        wait(
            py,
            batch::run(self.here()?, self.calls(requests, timeout, None), write_answer),
        )
    }

    fn put_many_async<'py>(
        &self,
        py: Python<'py>,
        keyspace: u32,
        items: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let requests = put_requests(keyspace, &items, level)?;
        awaitable(
            py,
            batch::run(self.here()?, self.calls(requests, timeout, None), write_answer),
        )
    }

    fn get_many(
        &self,
        py: Python<'_>,
        keyspace: u32,
        keys: Vec<Bound<'_, PyAny>>,
        level: Option<&str>,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<Vec<Each<RawEntry>>> {
        let requests = get_requests(keyspace, &keys, level)?;
        wait(
            py,
            batch::run(self.here()?, self.calls(requests, timeout, node), read_answer),
        )
    }

    fn get_many_async<'py>(
        &self,
        py: Python<'py>,
        keyspace: u32,
        keys: Vec<Bound<'py, PyAny>>,
        level: Option<&str>,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let requests = get_requests(keyspace, &keys, level)?;
        awaitable(
            py,
            batch::run(self.here()?, self.calls(requests, timeout, node), read_answer),
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        py: Python<'_>,
        keyspace: u32,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<RawPage> {
        let request = scan_request(keyspace, start, end, after_start, limit, level)?;
        wait(py, page(self.here()?, request, self.options(timeout, false)))
    }

    #[allow(clippy::too_many_arguments)]
    fn scan_async<'py>(
        &self,
        py: Python<'py>,
        keyspace: u32,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = scan_request(keyspace, start, end, after_start, limit, level)?;
        awaitable(py, page(self.here()?, request, self.options(timeout, false)))
    }

    fn create_keyspace(&self, py: Python<'_>, settings: &str, timeout: f64) -> PyResult<String> {
        let request = create_request(settings)?;
        wait(py, described(self.here()?, request, plain(timeout)))
    }

    fn create_keyspace_async<'py>(
        &self,
        py: Python<'py>,
        settings: &str,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = create_request(settings)?;
        awaitable(py, described(self.here()?, request, plain(timeout)))
    }

    /// Changes settings of a keyspace: `read_level`, `write_level`, `read_repair`, as JSON.
    fn alter_keyspace(&self, py: Python<'_>, name: &str, change: &str, timeout: f64) -> PyResult<String> {
        let request = alter_request(name, change)?;
        wait(py, described(self.here()?, request, plain(timeout)))
    }

    fn alter_keyspace_async<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        change: &str,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = alter_request(name, change)?;
        awaitable(py, described(self.here()?, request, plain(timeout)))
    }

    fn drop_keyspace(&self, py: Python<'_>, name: &str, timeout: f64) -> PyResult<String> {
        wait(py, described(self.here()?, drop_request(name), plain(timeout)))
    }

    fn drop_keyspace_async<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, described(self.here()?, drop_request(name), plain(timeout)))
    }

    fn keyspaces(&self, py: Python<'_>, timeout: f64) -> PyResult<String> {
        wait(
            py,
            described(self.here()?, Request::ListKeyspaces, plain(timeout)),
        )
    }

    fn keyspaces_async<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        awaitable(
            py,
            described(self.here()?, Request::ListKeyspaces, plain(timeout)),
        )
    }

    fn topology(&self, py: Python<'_>, timeout: f64) -> PyResult<String> {
        wait(py, described(self.here()?, Request::Membership, plain(timeout)))
    }

    fn topology_async<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, described(self.here()?, Request::Membership, plain(timeout)))
    }

    /// Asks each of these nodes the same: `status`, `events`, `spans`, `metrics` or `groups`.
    fn ask(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        what: &str,
        argument: u128,
        timeout: f64,
    ) -> PyResult<Vec<Each<String>>> {
        wait(py, ask(self.here()?, nodes, question(what, argument)?, timeout))
    }

    fn ask_async<'py>(
        &self,
        py: Python<'py>,
        nodes: Vec<u16>,
        what: &str,
        argument: u128,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, ask(self.here()?, nodes, question(what, argument)?, timeout))
    }

    /// Has each of these nodes change its faults: `Add`, `Heal` or `Replace`, as JSON; or asks which there are.
    fn faults(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        change: Option<&str>,
        timeout: f64,
    ) -> PyResult<Vec<Each<String>>> {
        wait(py, ask(self.here()?, nodes, faults_request(change)?, timeout))
    }

    fn faults_async<'py>(
        &self,
        py: Python<'py>,
        nodes: Vec<u16>,
        change: Option<&str>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, ask(self.here()?, nodes, faults_request(change)?, timeout))
    }

    /// A consensus keyspace: its id and name, the id and members of the group of each shard, and the ring's hash.
    fn consensus(
        slf: &Bound<'_, Self>,
        keyspace: u32,
        name: &str,
        groups: Vec<(u32, Vec<u16>)>,
        hash: &str,
    ) -> PyResult<Consensus> {
        consensus::open(slf, keyspace, name, groups, hash)
    }

    /// The spans of a trace that this client itself keeps, as JSON.
    fn spans(&self, trace_id: u128) -> PyResult<String> {
        json(&self.here()?.spans(trace_id)).map_err(exception)
    }

    fn close(&self, py: Python<'_>) {
        // In a forked child the connections are the parent's: there is nothing here to close.
        if let Ok(client) = self.here() {
            client.close();
            py.detach(|| self.sampling.flush());
        }
    }
}

impl Client {
    /// The client, unless this process was forked from the one that has its threads.
    pub(crate) fn here(&self) -> PyResult<quorate_client::Client> {
        if self.process == std::process::id() {
            return Ok(self.client.clone());
        }
        Err(exception(Error::Closed(format!(
            "this client belongs to process {}, from which this one was forked: connect again here",
            self.process
        ))))
    }

    pub(crate) fn options(&self, timeout: f64, trace: bool) -> CallOptions {
        CallOptions {
            trace: self.sampling.decide(trace),
            ..plain(timeout)
        }
    }

    fn calls(&self, requests: Vec<Result<Request, Error>>, timeout: f64, node: Option<u16>) -> Vec<Call> {
        let call = |request| (request, on(self.options(timeout, false), node));
        requests.into_iter().map(call).collect()
    }
}

/// The same, asked of this node only, if one is named.
pub(crate) fn on(options: CallOptions, node: Option<u16>) -> CallOptions {
    CallOptions {
        node: node.map(NodeId),
        ..options
    }
}

async fn open(endpoints: Vec<String>, timeout: f64, secret: Option<String>) -> PyResult<Client> {
    let sampling = Sampling::from_environment().map_err(exception)?;
    let options = ConnectOptions {
        timeout: duration(timeout),
        credentials: secret.unwrap_or_default().into(),
        span_sink: sampling.sink(),
        ..ConnectOptions::default()
    };
    let client = quorate_client::Client::connect_with(endpoints, options)
        .await
        .map_err(exception)?;
    Ok(Client {
        client,
        sampling,
        process: std::process::id(),
    })
}

async fn write(client: quorate_client::Client, request: Request, options: CallOptions) -> PyResult<RawWrite> {
    write_answer(client.call(request, options).await).map_err(exception)
}

async fn read(client: quorate_client::Client, request: Request, options: CallOptions) -> PyResult<RawEntry> {
    read_answer(client.call(request, options).await).map_err(exception)
}

async fn page(client: quorate_client::Client, request: Request, options: CallOptions) -> PyResult<RawPage> {
    let outcome = client.call(request, options).await;
    let course = course(&outcome);
    match outcome.result.map_err(exception)? {
        Response::Page(page) => RawPage::new(page, course),
        _ => Err(exception(unexpected())),
    }
}

async fn described(
    client: quorate_client::Client,
    request: Request,
    options: CallOptions,
) -> PyResult<String> {
    description(client.call(request, options).await).map_err(exception)
}

async fn ask(
    client: quorate_client::Client,
    nodes: Vec<u16>,
    question: Request,
    timeout: f64,
) -> PyResult<Vec<Each<String>>> {
    let options = |node: &u16| plain(timeout).on(NodeId(*node));
    let calls = nodes
        .iter()
        .map(|node| (Ok(question.clone()), options(node)))
        .collect();
    batch::run(client, calls, description).await
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

/// An answer that Python reads as JSON, or the metrics as they are.
fn description(outcome: Outcome) -> Result<String, Error> {
    match outcome.result? {
        Response::Keyspace { keyspace, created: _ } => json(&keyspace),
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

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::invalid(format!("this answer cannot be shown: {error}")))
}

fn unexpected() -> Error {
    Error::Refused(
        "the node answered another question than it was asked: it is not a Quorate node".to_owned(),
    )
}
