//! The permission to make deliberate mistakes.
//!
//! `quorate_core::bugs` has mistakes that roles make on request, so that tests can show that they would be found. The node
//! program must never be able to make one. A feature flag would not hold that: Cargo unifies features, so a test elsewhere in
//! the workspace would switch it on for the node as well. So whoever asks for mistakes must show a [`Permit`], and only a
//! crate that depends on this one can have it: the testing crate and the simulator. A test holds the dependencies to that.

/// Shown by whoever asks for mistakes.
#[derive(Clone, Copy, Debug)]
pub struct Permit(());

impl Permit {
    /// For tests and simulations.
    pub const fn for_tests() -> Self {
        Permit(())
    }
}
