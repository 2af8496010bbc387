//! The node program, and the identity in its data directory.

use std::path::PathBuf;

use pyo3::prelude::*;

/// Run a node until SIGTERM, SIGINT or the end of its parent; returns the exit code.
#[pyfunction]
pub(crate) fn run_node(py: Python<'_>, config: &str) -> i32 {
    py.detach(|| quorate_gateway::run(config))
}

/// Read the identity in a node's data directory, as JSON; `None` if there is none.
#[pyfunction]
pub(crate) fn inspect_directory(py: Python<'_>, directory: PathBuf) -> Option<String> {
    py.detach(|| quorate_gateway::inspect(&directory))
}
