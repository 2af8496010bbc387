//! What is asked about a cluster and its nodes, as dictionaries and lists of Python, and what Python gives in that form.

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

/// What a node tells about itself or the cluster.
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
    /// Nothing but that it is done.
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
    /// The outcome's; [`Error::Refused`] for a response that is none.
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

/// What Python gives, as the protocol has it.
///
/// # Errors
/// [`Error::InvalidArgument`] that says what it is not.
pub(crate) fn read<T: DeserializeOwned>(given: &Bound<'_, PyAny>, what: &str) -> Result<T, Error> {
    depythonize(given).map_err(|error| Error::invalid(format!("not {what}: {error}")))
}
