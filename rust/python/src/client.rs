//! The client, as Python calls it. Every operation is a [`PendingCall`], to be blocked on or awaited.

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
use crate::requests::{alter_request, create_request, drop_request, faults_request, plain, question};
use crate::sampling::Sampling;

/// A connection to a cluster.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Client {
    client: OfProcess<quorate_client::Client>,
    sampling: Sampling,
}

#[pymethods]
impl Client {
    /// Connect; the call's answer is the client.
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

    /// Asks each of these nodes the same: `status`, `events`, `spans`, `metrics` or `groups`.
    fn ask(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        what: &str,
        argument: u128,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.ask_each(py, nodes, question(what, argument), timeout)
    }

    /// Has each of these nodes change its faults: `Add`, `Heal` or `Replace`; or asks which there are.
    fn faults(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        change: Option<&Bound<'_, PyAny>>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        self.ask_each(py, nodes, faults_request(change), timeout)
    }

    /// A keyspace in quorum mode, by its id and name, and how many replicas it has.
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

    /// The spans of a trace that this client itself keeps.
    fn spans(&self, py: Python<'_>, trace_id: u128) -> PyResult<Document> {
        let spans = self.here().map(|client| client.spans(trace_id));
        spans.map(Document::Spans).map_err(|error| exception(py, error))
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
    fn describe(
        &self,
        py: Python<'_>,
        request: Result<Request, Error>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let describing = || Ok(operations::describe(self.here()?, request?, timeout));
        self.pending(py, describing())
    }

    fn ask_each(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        question: Result<Request, Error>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let asking = || Ok(operations::ask(self.here()?, nodes, question?, timeout));
        self.pending(py, asking())
    }

    /// A call of this client.
    pub(crate) fn pending<F, T>(&self, py: Python<'_>, operation: Result<F, Error>) -> PyResult<PendingCall>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        // In a forked child the operation is an error already.
        let driver = self.client.here().ok().map(quorate_client::Client::driver);
        pending(py, driver, operation)
    }

    /// The client, unless this process was forked from the one that has its threads.
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
