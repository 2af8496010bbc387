//! The load generator.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use quorate_client::bench::{Options, run_blocking};
use quorate_protocol::error::Error;

use crate::errors::exception;

/// How often it is looked whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Measure a cluster once; options and report are JSON.
#[pyfunction]
pub(crate) fn bench(py: Python<'_>, endpoints: Vec<String>, options: &str) -> PyResult<String> {
    let options: Options = serde_json::from_str(options).map_err(|error| {
        exception(Error::invalid(format!(
            "these are not a benchmark's options: {error}"
        )))
    })?;
    // The loop has a thread of its own, as it has in the generator that measures the peers.
    let (done, report) = channel();
    std::thread::Builder::new()
        .name("quorate-bench".to_owned())
        // A receiver that is gone was interrupted.
        .spawn(move || done.send(run_blocking(endpoints, options)).unwrap_or_default())
        .map_err(|error| exception(Error::Overloaded(format!("no thread for the benchmark: {error}"))))?;
    py.detach(move || {
        loop {
            match report.recv_timeout(SIGNAL_CHECK) {
                Ok(Ok(report)) => {
                    return serde_json::to_string(&report).map_err(|error| {
                        exception(Error::invalid(format!("this report cannot be shown: {error}")))
                    });
                }
                Ok(Err(error)) => return Err(exception(error)),
                Err(RecvTimeoutError::Timeout) => Python::attach(|py| py.check_signals())?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(exception(Error::Closed(
                        "the benchmark ended without a report".to_owned(),
                    )));
                }
            }
        }
    })
}
