//! The load generator.

use std::pin::pin;

use pyo3::prelude::*;
use quorate_client::bench::{Options, Report, Run};
use quorate_client::shell::block_on;
use quorate_core::error::Error;

use crate::call::{PendingCall, pending};
use crate::documents::{self, Plain};
use crate::errors::exception;
use crate::requests::duration;

/// Measure a cluster once; options and report are dictionaries. A call that is interrupted stops the measurement.
#[pyfunction]
pub(crate) fn bench(
    py: Python<'_>,
    endpoints: Vec<String>,
    options: &Bound<'_, PyAny>,
) -> PyResult<PendingCall> {
    let measuring = start(endpoints, options).map(|mut run| async move { run.report().await.map(Plain) });
    pending(py, None, measuring)
}

fn start(endpoints: Vec<String>, options: &Bound<'_, PyAny>) -> Result<Run, Error> {
    Run::start(
        endpoints,
        documents::read::<Options>(options, "a benchmark's options")?,
    )
}

/// A running measurement, with progress and stop.
#[pyclass(module = "quorate._quorate")]
pub(crate) struct BenchRun {
    run: Run,
}

#[pymethods]
impl BenchRun {
    #[new]
    fn new(py: Python<'_>, endpoints: Vec<String>, options: &Bound<'_, PyAny>) -> PyResult<Self> {
        let run = start(endpoints, options).map_err(|error| exception(py, error))?;
        Ok(BenchRun { run })
    }

    /// Returns the report once it is complete, or `None` after this many seconds or a signal.
    fn wait(&mut self, py: Python<'_>, seconds: f64) -> PyResult<Option<Plain<Report>>> {
        let (run, patience) = (&mut self.run, duration(seconds));
        let report = py.detach(|| block_on(pin!(run.report()), Some(patience)));
        py.check_signals()?;
        let report = report.transpose().map_err(|error| exception(py, error))?;
        Ok(report.map(Plain))
    }

    /// The share of the run that is complete, from 0 to 1.
    #[getter]
    fn progress(&self) -> f64 {
        self.run.progress()
    }

    /// Stop it; no request is sent after this returns.
    fn stop(&mut self, py: Python<'_>) {
        let run = &mut self.run;
        py.detach(|| run.stop());
    }
}
