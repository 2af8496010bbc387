//! The node program.

use pyo3::prelude::*;

/// Run a node until SIGTERM, SIGINT or the end of its parent; returns the exit code.
#[pyfunction]
pub(crate) fn run_node(py: Python<'_>, config: &str) -> i32 {
    py.detach(|| quorate_gateway::run(config))
}
