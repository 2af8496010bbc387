//! The client, as Python calls it: every operation once to block on, once to await.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quorate_client::CallOptions;
use quorate_core::error::Error;
use quorate_protocol::api::Request;

use crate::answers::{Each, Page, RawEntry, RawWrite};
use crate::consensus::{self, Consensus};
use crate::context::Context;
use crate::errors::exception;
use crate::executor::{PendingCall, pending};
use crate::operations;
use crate::process::OfProcess;
use crate::requests::{
    alter_request, create_request, drop_request, faults_request, plain, question, scan_request,
};
use crate::runtime::wait;
use crate::sampling::Sampling;

/// A connection to a cluster.
#[pyclass(frozen, module = "quorate._quorate")]
pub(crate) struct Client {
    client: OfProcess<quorate_client::Client>,
    sampling: Sampling,
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
        wait(py, Ok(operations::open(endpoints, timeout, secret)))
    }

    #[staticmethod]
    fn connect_async(
        py: Python<'_>,
        endpoints: Vec<String>,
        timeout: f64,
        secret: Option<String>,
    ) -> PyResult<PendingCall> {
        pending(py, Ok(operations::open(endpoints, timeout, secret)))
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
        wait(
            py,
            self.putting(keyspace, key, value, context, level, timeout, trace),
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn put_async(
        &self,
        py: Python<'_>,
        keyspace: u32,
        key: &[u8],
        value: Option<&[u8]>,
        context: Option<&Bound<'_, Context>>,
        level: Option<&str>,
        timeout: f64,
        trace: bool,
    ) -> PyResult<PendingCall> {
        pending(
            py,
            self.putting(keyspace, key, value, context, level, timeout, trace),
        )
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
        wait(py, self.getting(keyspace, key, level, timeout, trace, node))
    }

    #[allow(clippy::too_many_arguments)]
    fn get_async(
        &self,
        py: Python<'_>,
        keyspace: u32,
        key: &[u8],
        level: Option<&str>,
        timeout: f64,
        trace: bool,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        pending(py, self.getting(keyspace, key, level, timeout, trace, node))
    }

    fn put_many(
        &self,
        py: Python<'_>,
        keyspace: u32,
        items: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<Vec<Each<RawWrite>>> {
        wait(py, self.putting_many(keyspace, &items, level, timeout))
    }

    fn put_many_async(
        &self,
        py: Python<'_>,
        keyspace: u32,
        items: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        pending(py, self.putting_many(keyspace, &items, level, timeout))
    }

    fn get_many(
        &self,
        py: Python<'_>,
        keyspace: u32,
        keys: Vec<Bound<'_, PyBytes>>,
        level: Option<&str>,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<Vec<Each<RawEntry>>> {
        wait(py, self.getting_many(keyspace, &keys, level, timeout, node))
    }

    fn get_many_async(
        &self,
        py: Python<'_>,
        keyspace: u32,
        keys: Vec<Bound<'_, PyBytes>>,
        level: Option<&str>,
        timeout: f64,
        node: Option<u16>,
    ) -> PyResult<PendingCall> {
        pending(py, self.getting_many(keyspace, &keys, level, timeout, node))
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
    ) -> PyResult<Page> {
        let request = scan_request(keyspace, start, end, after_start, limit, level);
        wait(py, self.scanning(request, timeout))
    }

    #[allow(clippy::too_many_arguments)]
    fn scan_async(
        &self,
        py: Python<'_>,
        keyspace: u32,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        after_start: bool,
        limit: u32,
        level: Option<&str>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        let request = scan_request(keyspace, start, end, after_start, limit, level);
        pending(py, self.scanning(request, timeout))
    }

    fn create_keyspace(&self, py: Python<'_>, settings: &str, timeout: f64) -> PyResult<String> {
        wait(py, self.describing(create_request(settings), timeout))
    }

    fn create_keyspace_async(&self, py: Python<'_>, settings: &str, timeout: f64) -> PyResult<PendingCall> {
        pending(py, self.describing(create_request(settings), timeout))
    }

    /// Changes settings of a keyspace: `read_level`, `write_level`, `read_repair`, as JSON.
    fn alter_keyspace(&self, py: Python<'_>, name: &str, change: &str, timeout: f64) -> PyResult<String> {
        wait(py, self.describing(alter_request(name, change), timeout))
    }

    fn alter_keyspace_async(
        &self,
        py: Python<'_>,
        name: &str,
        change: &str,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        pending(py, self.describing(alter_request(name, change), timeout))
    }

    fn drop_keyspace(&self, py: Python<'_>, name: &str, timeout: f64) -> PyResult<String> {
        wait(py, self.describing(Ok(drop_request(name)), timeout))
    }

    fn drop_keyspace_async(&self, py: Python<'_>, name: &str, timeout: f64) -> PyResult<PendingCall> {
        pending(py, self.describing(Ok(drop_request(name)), timeout))
    }

    fn keyspaces(&self, py: Python<'_>, timeout: f64) -> PyResult<String> {
        wait(py, self.describing(Ok(Request::ListKeyspaces), timeout))
    }

    fn keyspaces_async(&self, py: Python<'_>, timeout: f64) -> PyResult<PendingCall> {
        pending(py, self.describing(Ok(Request::ListKeyspaces), timeout))
    }

    fn topology(&self, py: Python<'_>, timeout: f64) -> PyResult<String> {
        wait(py, self.describing(Ok(Request::Membership), timeout))
    }

    fn topology_async(&self, py: Python<'_>, timeout: f64) -> PyResult<PendingCall> {
        pending(py, self.describing(Ok(Request::Membership), timeout))
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
        wait(py, self.asking(&nodes, question(what, argument), timeout))
    }

    fn ask_async(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        what: &str,
        argument: u128,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        pending(py, self.asking(&nodes, question(what, argument), timeout))
    }

    /// Has each of these nodes change its faults: `Add`, `Heal` or `Replace`, as JSON; or asks which there are.
    fn faults(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        change: Option<&str>,
        timeout: f64,
    ) -> PyResult<Vec<Each<String>>> {
        wait(py, self.asking(&nodes, faults_request(change), timeout))
    }

    fn faults_async(
        &self,
        py: Python<'_>,
        nodes: Vec<u16>,
        change: Option<&str>,
        timeout: f64,
    ) -> PyResult<PendingCall> {
        pending(py, self.asking(&nodes, faults_request(change), timeout))
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
    fn spans(&self, py: Python<'_>, trace_id: u128) -> PyResult<String> {
        let spans = self.here().map(|client| client.spans(trace_id));
        spans
            .and_then(|spans| operations::json(&spans))
            .map_err(|error| exception(py, error))
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
    pub(crate) fn new(client: quorate_client::Client, sampling: Sampling) -> Self {
        Client {
            client: OfProcess::new(client),
            sampling,
        }
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
