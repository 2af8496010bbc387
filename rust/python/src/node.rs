//! The node program.

use std::sync::Arc;

use pyo3::prelude::*;

/// Run a node until SIGTERM, SIGINT or the end of its parent; returns the exit code.
#[pyfunction]
pub(crate) fn run_node(py: Python<'_>, config: &str) -> i32 {
    py.detach(|| quorate_node::run(config, Arc::new(quorate_gateway::Gateway)))
}
