//! Tests of node processes: startup, shutdown, and clusters.

mod client;
mod cluster;
mod damage;
mod durability;
mod lifecycle;
mod process;
mod sessions;

use std::time::{Duration, Instant};

/// The timeout of all waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` returns a value.
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
