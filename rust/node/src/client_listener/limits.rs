//! How much the clients may ask for at once, and how much of it they do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::time::Instant;
use quorate_protocol::admission::{self, Totals};
use tokio::sync::Notify;

/// What a node lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; a further one is refused.
    pub connections: usize,
    /// Requests in flight.
    pub admission: admission::Limits,
    /// Bytes of large requests of which only a part has come, on all connections. A connection waits for its turn.
    pub partial_bytes: usize,
    /// Bytes of answers that may wait for one connection to read them. From a quarter on, no more requests are read
    /// from it.
    pub unread_bytes: usize,
    /// The same on all connections: the one whose answer goes beyond it is closed.
    pub all_unread_bytes: usize,
    /// How long a new connection may take for its hello.
    pub hello: Duration,
    /// How long a request may take from its first to its last byte.
    pub frame: Duration,
    /// How long a connection may read nothing of what waits for it.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4_096,
            admission: admission::Limits::default(),
            partial_bytes: 64 << 20,
            unread_bytes: 128 << 20,
            all_unread_bytes: 512 << 20,
            hello: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            stall: Duration::from_secs(60),
        }
    }
}

/// A quantity that many connections share.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    /// Takes `amount`, or nothing when the sum would exceed `limit`.
    pub(super) fn try_take(&self, amount: usize, limit: usize) -> bool {
        let fits = self.take(amount) <= limit;
        if !fits {
            self.give_back(amount);
        }
        fits
    }

    /// Takes `amount` and returns the sum.
    pub(super) fn take(&self, amount: usize) -> usize {
        self.0.fetch_add(amount, Ordering::Relaxed).saturating_add(amount)
    }

    pub(super) fn give_back(&self, amount: usize) {
        let before = self.0.fetch_sub(amount, Ordering::Relaxed);
        assert!(before >= amount, "{amount} given back but only {before} taken");
    }

    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What all connections together use.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) connections: Gauge,
    pub(super) unread: Gauge,
    pub(super) partial: Gauge,
    /// Some of `partial` was given back.
    pub(super) room: Notify,
    totals: Mutex<Totals>,
    started: std::time::Instant,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            connections: Gauge::default(),
            unread: Gauge::default(),
            partial: Gauge::default(),
            room: Notify::new(),
            totals: Mutex::default(),
            started: std::time::Instant::now(),
        }
    }
}

impl Load {
    /// The requests in flight. Taken after a connection's own books, never before.
    pub(super) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the listener was made.
    pub(super) fn now(&self) -> Instant {
        Instant(self.started.elapsed().as_micros() as u64)
    }
}
