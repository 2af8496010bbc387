//! Documents: responses about a cluster and its nodes as Python dictionaries and lists, and arguments in that form.

use pyo3::prelude::*;
use pythonize::{depythonize, pythonize};
use quorate_client::Outcome;
use quorate_core::error::Error;
use quorate_protocol::api::{GroupClaim, Response, Status};
use quorate_protocol::faults::LinkFault;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::telemetry::{Occurrence, Span};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A response about a node or the cluster.
pub(crate) enum Document {
    /// A keyspace, and whether it is new.
    Keyspace(Created),
    /// All keyspaces.
    Keyspaces(Vec<Keyspace>),
    /// The members.
    Membership(Box<quorate_protocol::api::Membership>),
    /// A node's view of itself and its peers.
    Status(Box<Status>),
    /// The timeline of a node.
    Events(Vec<Occurrence>),
    /// Spans of a trace.
    Spans(Vec<Span>),
    /// Metrics in the Prometheus text format.
    Metrics(String),
    /// The Raft groups of a node.
    Groups(Vec<GroupClaim>),
    /// The active faults of a node.
    Faults(Vec<LinkFault>),
    /// An acknowledgement without content.
    Done,
}

/// A keyspace, and whether it is new.
#[derive(Serialize)]
pub(crate) struct Created {
    #[serde(flatten)]
    keyspace: Keyspace,
    created: bool,
}

impl Document {
    /// The document in a response.
    ///
    /// # Errors
    /// The error of the outcome; [`Error::Refused`] for a response of another type.
    pub(crate) fn of(outcome: Outcome) -> Result<Document, Error> {
        Ok(match outcome.result? {
            Response::Keyspace { keyspace, created } => Document::Keyspace(Created { keyspace, created }),
            Response::Keyspaces(keyspaces) => Document::Keyspaces(keyspaces),
            Response::Membership(membership) => Document::Membership(membership),
            Response::Status(status) => Document::Status(status),
            Response::Events(events) => Document::Events(events),
            Response::Spans(spans) => Document::Spans(spans),
            Response::Metrics(text) => Document::Metrics(text),
            Response::Groups(claims) => Document::Groups(claims),
            Response::Faults(faults) => Document::Faults(faults),
            Response::Done => Document::Done,
            _ => {
                return Err(Error::Refused(
                    "unexpected response type: not a Quorate node, or an incompatible version".to_owned(),
                ));
            }
        })
    }
}

impl<'py> IntoPyObject<'py> for Document {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let made = match &self {
            Document::Keyspace(created) => pythonize(py, created),
            Document::Keyspaces(keyspaces) => pythonize(py, keyspaces),
            Document::Membership(membership) => pythonize(py, membership),
            Document::Status(status) => pythonize(py, status),
            Document::Events(events) => pythonize(py, events),
            Document::Spans(spans) => pythonize(py, spans),
            Document::Metrics(text) => pythonize(py, text),
            Document::Groups(claims) => pythonize(py, claims),
            Document::Faults(faults) => pythonize(py, faults),
            Document::Done => pythonize(py, &()),
        };
        Ok(made?)
    }
}

/// Any other value in that form.
pub(crate) struct Plain<T>(pub(crate) T);

impl<'py, T: Serialize> IntoPyObject<'py> for Plain<T> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pythonize(py, &self.0)?)
    }
}

/// Converts a Python document to a type of the protocol.
///
/// # Errors
/// [`Error::InvalidArgument`], naming the expected type.
pub(crate) fn read<T: DeserializeOwned>(given: &Bound<'_, PyAny>, what: &str) -> Result<T, Error> {
    depythonize(given).map_err(|error| Error::invalid(format!("not {what}: {error}")))
}
