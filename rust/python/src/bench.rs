//! The load generator.

use pyo3::prelude::*;
use quorate_client::bench::{Options, Run};
use quorate_core::error::Error;

use crate::errors::exception;
use crate::operations::json;
use crate::requests::duration;
use crate::runtime::wait;

/// Measure a cluster once; options and report are JSON. An interrupted call stops the measurement.
#[pyfunction]
pub(crate) fn bench(py: Python<'_>, endpoints: Vec<String>, options: &str) -> PyResult<String> {
    let measuring = start(endpoints, options).map(|mut run| async move { json(&run.report().await?) });
    wait(py, measuring)
}

fn start(endpoints: Vec<String>, options: &str) -> Result<Run, Error> {
    let options = serde_json::from_str::<Options>(options)
        .map_err(|error| Error::invalid(format!("these are not a benchmark's options: {error}")))?;
    Run::start(endpoints, options)
}

/// A measurement under way, which can be watched and stopped, by one thread.
#[pyclass(module = "quorate._quorate")]
pub(crate) struct BenchRun {
    run: Run,
}

#[pymethods]
impl BenchRun {
    #[new]
    fn new(py: Python<'_>, endpoints: Vec<String>, options: &str) -> PyResult<Self> {
        let run = start(endpoints, options).map_err(|error| exception(py, error))?;
        Ok(BenchRun { run })
    }

    /// The report, once it is there; nothing when it is not after so many seconds.
    fn wait(&mut self, py: Python<'_>, seconds: f64) -> PyResult<Option<String>> {
        let (run, patience) = (&mut self.run, duration(seconds));
        let waiting = async move {
            match tokio::time::timeout(patience, run.report()).await {
                Ok(report) => json(&report?).map(Some),
                Err(_) => Ok(None),
            }
        };
        wait(py, Ok(waiting))
    }

    /// How much of the run is over, from 0 to 1.
    #[getter]
    fn progress(&self) -> f64 {
        self.run.progress()
    }

    /// End it now; nothing is sent any more when this returns.
    fn stop(&mut self, py: Python<'_>) {
        let run = &mut self.run;
        py.detach(|| run.stop());
    }
}
