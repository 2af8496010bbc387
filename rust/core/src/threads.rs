//! Whether the system gives threads, asked before a library that panics where it does not.

use std::io;
use std::sync::Mutex;
use std::thread::{Builder, scope};

/// Has `count` threads at once, and ends them. Tokio panics where it gets none for its workers.
///
/// # Errors
/// The system's: `ulimit -u`, a control group's `pids.max`, no memory for a stack.
pub fn try_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    scope(|scope| {
        // Held until all of them are there.
        let _held = gate.lock();
        (0..count).try_for_each(|_| Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop))
    })
}
