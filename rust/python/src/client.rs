//! The client for Python. Every operation returns a [`PendingCall`], to block on or to await.

use pyo3::prelude::*;
use quorate_client::CallOptions;
use quorate_core::error::Error;
use quorate_protocol::api::Request;

use crate::call::{PendingCall, pending};
use crate::consensus::{self, Consensus};
use crate::documents::Document;
use crate::errors::exception;
use crate::operations;
use crate::process::OfProcess;
use crate::quorum::{self, Quorum};
use crate::requests::{alter_request, create_request, drop_request, faults_request, node_request, plain};
use crate::sampling::Sampling;

/// A connection to a cluster.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Client {
    client: OfProcess<quorate_client::Client>,
    sampling: Sampling,
}

#[pymethods]
impl Client {
    /// Connect; the call's result is the client.
    #[staticmethod]
    fn connect(
        py: Python<'_>,
        endpoints: Vec<String>,
        timeout: f64,
        secret: Option<String>,
    ) -> PyResult<PendingCall> {
        let opening = operations::open(endpoints, timeout, secret);
        let driver = opening.as_ref().ok().map(|(driver, _)| driver.clone());
        let connecting = opening.map(|(_, opening)| async move {
            let (client, sampling) = opening.await?;
            Ok(Client {
                client: OfProcess::new(client),
                sampling,
            })
        });
        pending(py, driver.as_ref(), connecting)
    }

    fn create_keyspace(
        &self,
        py: Python<'_>,
        settings: &Bound<'_, PyAny>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.describe(py, create_request(settings), timeout)
    }

    /// Changes settings of a keyspace: `read_level`, `write_level`, `read_repair`.
    fn alter_keyspace(
        &self,
        py: Python<'_>,
        name: &str,
        change: &Bound<'_, PyAny>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.describe(py, alter_request(name, change), timeout)
    }

    fn drop_keyspace(&self, py: Python<'_>, name: &str, timeout: f64) -> PyResult<PendingCall> {
        self.describe(py, Ok(drop_request(name)), timeout)
    }

    fn keyspaces(&self, py: Python<'_>, timeout: f64) -> PyResult<PendingCall> {
        self.describe(py, Ok(Request::ListKeyspaces), timeout)
    }

    fn topology(&self, py: Python<'_>, timeout: f64) -> PyResult<PendingCall> {
        self.describe(py, Ok(Request::Membership), timeout)
    }

    /// Sends the same request to each of these nodes: `status`, `events`, `spans`, `metrics` or `groups`.
    fn ask(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        what: &str,
        argument: u128,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.request_from_nodes(py, nodes, node_request(what, argument), timeout)
    }

    /// Changes the faults of each of these nodes: `Add`, `Heal` or `Replace`; or lists them.
    fn faults(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        change: Option<&Bound<'_, PyAny>>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.request_from_nodes(py, nodes, faults_request(change), timeout)
    }

    /// A keyspace in quorum mode, by its id, name and number of replicas.
    fn quorum(slf: &Bound<'_, Self>, keyspace: u32, name: &str, replicas: u8) -> PyResult<Quorum> {
        quorum::open(slf, keyspace, name, replicas)
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

    /// The spans of a trace that this client keeps.
    fn spans(&self, py: Python<'_>, trace_id: u128) -> PyResult<Document> {
        let spans = self.here().map(|client| client.spans(trace_id));
        spans.map(Document::Spans).map_err(|error| exception(py, error))
    }

    fn close(&self, py: Python<'_>) {
        // In a forked child the connections belong to the parent: there is nothing to close.
        if let Ok(client) = self.here() {
            client.close();
            py.detach(|| self.sampling.flush());
        }
    }
}

impl Client {
    fn describe(
        &self,
        py: Python<'_>,
        request: Result<Request, Error>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let operation = || Ok(operations::describe(self.here()?, request?, timeout));
        self.pending(py, operation())
    }

    fn request_from_nodes(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        request: Result<Request, Error>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let operation = || {
            Ok(operations::request_from_nodes(
                self.here()?,
                nodes,
                request?,
                timeout,
            ))
        };
        self.pending(py, operation())
    }

    /// A call of this client.
    pub(crate) fn pending<F, T>(&self, py: Python<'_>, operation: Result<F, Error>) -> PyResult<PendingCall>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        // In a forked child the operation already is an error.
        let driver = self.client.here().ok().map(quorate_client::Client::driver);
        pending(py, driver, operation)
    }

    /// The client, unless this process was forked from the one that created it.
    pub(crate) fn here(&self) -> Result<quorate_client::Client, Error> {
        self.client.here().cloned()
    }

    pub(crate) fn options(&self, timeout: f64, trace: bool) -> CallOptions {
        CallOptions {
            trace: self.sampling.decide(trace),
            ..plain(timeout)
        }
    }
}
