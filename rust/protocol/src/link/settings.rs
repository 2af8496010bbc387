//! The bounds of links, and what can be set.

use std::time::Duration;

/// The most bytes of a batch.
pub const MAX_BATCH: usize = 256 << 10;
/// The most bytes of a chunk on the wire, its frame included; four fit into a batch.
pub const CHUNK_BYTES: usize = (64 << 10) - 64;
/// The most encoded bytes of one envelope; a larger one is shed. A key with all its siblings must fit.
pub const MAX_ENVELOPE: usize = 32 << 20;

/// What a link allows itself and its peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkSettings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A session on which nothing arrives for this long is closed.
    pub idle: Duration,
    /// How long messages wait for a new session after one has ended.
    pub grace: Duration,
    /// Credit given to the peer: bytes of envelopes that no role has taken yet.
    pub window_bytes: u64,
    /// Credit given to the peer: envelopes that no role has taken yet.
    pub window_count: u64,
    /// Chunks under way that the peer has not seen yet, at most.
    pub window_chunks: u64,
    /// Bytes that wait in the control lane, at most.
    pub control_queue_bytes: usize,
    /// Bytes that wait in the data lane, at most.
    pub data_queue_bytes: usize,
    /// Envelopes that wait in the control lane, and in the data lane, at most.
    pub queue_count: usize,
    /// Bytes that wait in the bulk lane, at most; not less than [`MAX_ENVELOPE`].
    pub bulk_queue_bytes: usize,
}

impl Default for LinkSettings {
    fn default() -> Self {
        LinkSettings {
            heartbeat: Duration::from_millis(100),
            idle: Duration::from_secs(1),
            grace: Duration::from_secs(1),
            window_bytes: 4 << 20,
            window_count: 16 << 10,
            window_chunks: 8,
            control_queue_bytes: 128 << 10,
            data_queue_bytes: 8 << 20,
            queue_count: 64 << 10,
            bulk_queue_bytes: 64 << 20,
        }
    }
}
