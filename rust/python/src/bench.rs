//! The load generator.

use pyo3::prelude::*;
use quorate_client::bench::{Options, run_apart};
use quorate_core::error::Error;

use crate::call::{PendingCall, pending};
use crate::operations::json;

/// Measure a cluster once; options and report are JSON.
#[pyfunction]
pub(crate) fn bench(py: Python<'_>, endpoints: Vec<String>, options: &str) -> PyResult<PendingCall> {
    let options = serde_json::from_str::<Options>(options)
        .map_err(|error| Error::invalid(format!("these are not a benchmark's options: {error}")));
    let measuring = |options| async move { json(&run_apart(endpoints, options).await?) };
    pending(py, None, options.map(measuring))
}
