//! The node program without Python, for tests and for looking at a node with the tools of the operating system.
//! Not shipped: users start `python -m quorate node`.

use std::process::ExitCode;

/// Most of what a node allocates is small and freed by another thread: the C library's allocator spends a tenth of the
/// node's time on that.
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
