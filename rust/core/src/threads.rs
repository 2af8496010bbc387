//! Checks whether the system provides threads, before a library panics without them.

use std::io;
use std::sync::Mutex;
use std::thread::{Builder, scope};

/// Starts `count` threads at once, and ends them. Tokio panics if it gets no threads for its workers.
///
/// # Errors
/// The system's: `ulimit -u`, a control group's `pids.max`, no memory for a stack.
pub fn try_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    scope(|scope| {
        // Held until all have started.
        let _held = gate.lock();
        (0..count).try_for_each(|_| Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop))
    })
}
