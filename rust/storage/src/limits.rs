//! Bounds of what can be stored.

/// The longest key of a row, in bytes: what LMDB takes with pages of 4 KiB.
pub const MAX_KEY_BYTES: usize = 1982;
/// The longest name of a hard state, in bytes.
pub const MAX_HARD_KEY_BYTES: usize = MAX_KEY_BYTES - 1;
