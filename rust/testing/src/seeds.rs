//! Random runs: which seeds, and what came of one.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seeds of a property: so many, or as many as the environment's `NAME_SEEDS` says, or the one that `NAME_SEED` says.
pub fn seeds(name: &str, default: u64) -> Range<u64> {
    match number(&format!("{name}_SEED")) {
        Some(seed) => seed..seed + 1,
        None => 0..number(&format!("{name}_SEEDS")).unwrap_or(default),
    }
}

/// What a run comes to: an assertion that fails in it is a violation as any other.
///
/// # Errors
/// What the run says, or the assertion.
pub fn outcome<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_default())
    })
}
