//! The permission to make deliberate mistakes.
//!
//! `quorate_core::bugs` defines mistakes that roles make on request, so that tests can prove that they are
//! caught. The node program must never be able to make one. A feature flag cannot ensure that: Cargo unifies
//! features, so a test elsewhere in the workspace would enable it for the node as well. So code that requests
//! mistakes needs a [`Permit`], and only a crate that depends on this one has it: the testing crate and the
//! simulator. A test checks the dependencies.

/// The permission.
#[derive(Clone, Copy, Debug)]
pub struct Permit(());

impl Permit {
    /// For tests and simulations.
    pub const fn for_tests() -> Self {
        Permit(())
    }
}
