//! The node program without Python, for tests and for profiling with the tools of the operating system.
//! Not shipped: users start `python -m quorate node`.

use std::process::ExitCode;

/// Most allocations of a node are small and freed by another thread, which costs a tenth of its time with the C library's
/// allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: quorate-node CONFIG (a JSON or TOML file)");
        return ExitCode::from(2);
    };
    match std::fs::read_to_string(&path) {
        Ok(config) => ExitCode::from(quorate_gateway::run(&config) as u8),
        Err(error) => {
            eprintln!("quorate-node: read {path}: {error}");
            ExitCode::from(2)
        }
    }
}
