//! Nodes as processes, and a client that blocks: what the tests of this folder share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

mod client;
mod process;

use std::time::{Duration, Instant};

pub use client::{Client, get, put};
pub use process::{Cluster, Node, NodeOptions};

/// How long anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` answers something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
