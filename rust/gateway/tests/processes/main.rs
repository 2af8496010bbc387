//! Nodes as processes: their start, their end, and what they do together.

mod client;
mod cluster;
mod damage;
mod durability;
mod lifecycle;
mod process;
mod sessions;

use std::time::{Duration, Instant};

/// How long anything in these tests may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` answers something.
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
