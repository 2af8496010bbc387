//! The extension module `quorate._quorate`: registration and conversions only.

mod context;
mod errors;
mod ring;

use pyo3::prelude::*;

/// The client, the ring and the node program.
#[pymodule]
mod _quorate {
    #[pymodule_export]
    use crate::context::Context;
    #[pymodule_export]
    use crate::ring::Ring;

    /// The version of the program.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
