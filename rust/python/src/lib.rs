//! The extension module `quorate._quorate`: registration and conversions only.

mod answers;
mod asyncio;
mod bench;
mod call;
mod call_future;
mod client;
mod consensus;
mod context;
mod documents;
mod errors;
mod node;
mod operations;
mod process;
mod quorum;
mod records;
mod requests;
mod ring;
mod sampling;
mod stamp;

use pyo3::prelude::*;

/// Most allocations of a node are small and freed by another thread, on which the C library's allocator spends a tenth
/// of the node's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The client, the ring and the node program.
#[pymodule]
mod _quorate {
    #[pymodule_export]
    use crate::answers::{RawEntry, RawPage, RawVersion, RawWrite};
    #[pymodule_export]
    use crate::asyncio::Executor;
    #[pymodule_export]
    use crate::bench::{BenchRun, bench};
    #[pymodule_export]
    use crate::call::PendingCall;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::consensus::Consensus;
    #[pymodule_export]
    use crate::context::Context;
    #[pymodule_export]
    use crate::node::{inspect_directory, run_node};
    #[pymodule_export]
    use crate::quorum::Quorum;
    #[pymodule_export]
    use crate::records::{RawCommit, RawLogPage, RawRecord, RawRecordPage};
    #[pymodule_export]
    use crate::ring::Ring;

    /// The version of the program.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// A checksum of the stub file that this was built with.
    #[pymodule_export]
    const INTERFACE: u32 = crate::stamp::INTERFACE;

    /// Maximum size of a value.
    #[pymodule_export]
    const MAX_VALUE_BYTES: usize = quorate_core::key::MAX_VALUE_BYTES;
}
