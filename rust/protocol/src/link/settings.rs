//! The bounds of links, and their settings.

use std::time::Duration;

/// The maximum size of a batch, in bytes.
pub const MAX_BATCH: usize = 256 << 10;
/// The maximum size of a chunk on the wire, including its frame, in bytes; four fit into a batch.
pub const CHUNK_BYTES: usize = (64 << 10) - 64;
/// The maximum encoded size of an envelope, in bytes; a larger one is shed. A key with all its siblings must fit.
pub const MAX_ENVELOPE: usize = 32 << 20;

/// The timing and limits of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkSettings {
    /// The interval between heartbeats.
    pub heartbeat: Duration,
    /// A session on which nothing arrives for this long is closed.
    pub idle: Duration,
    /// How long messages wait for a new session after one has ended.
    pub grace: Duration,
    /// Credit given to the peer: bytes of envelopes that no role has taken yet.
    pub window_bytes: u64,
    /// Credit given to the peer: envelopes that no role has taken yet.
    pub window_count: u64,
    /// The maximum number of unconfirmed chunks in flight.
    pub window_chunks: u64,
    /// The maximum number of bytes in the control lane.
    pub control_queue_bytes: usize,
    /// The maximum number of bytes in the data lane.
    pub data_queue_bytes: usize,
    /// The maximum number of envelopes in the control lane, and in the data lane.
    pub queue_count: usize,
    /// The maximum number of bytes in the bulk lane; at least [`MAX_ENVELOPE`].
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
