//! Random runs: their seeds and outcomes.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seeds of a property: the default number, or `NAME_SEEDS` from the environment, or the single seed `NAME_SEED`.
pub fn seeds(name: &str, default: u64) -> Range<u64> {
    match number(&format!("{name}_SEED")) {
        Some(seed) => seed..seed + 1,
        None => 0..number(&format!("{name}_SEEDS")).unwrap_or(default),
    }
}

/// The outcome of a run; a failed assertion is converted to an error.
///
/// # Errors
/// The error of the run, or the failed assertion.
pub fn outcome<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_default())
    })
}
