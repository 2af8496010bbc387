//! The limits of the client listener, and its current load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::time::Instant;
use quorate_protocol::admission::{self, Totals};
use tokio::sync::Notify;

/// The limits of the client listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections; further ones are rejected.
    pub connections: usize,
    /// Requests in flight.
    pub admission: admission::Limits,
    /// Bytes of partial large requests, on all connections. Connections wait for room.
    pub partial_bytes: usize,
    /// Unread bytes of responses on one connection. Beyond a quarter, no more requests are read from it.
    pub unread_bytes: usize,
    /// Unread bytes on all connections: a connection whose response exceeds this is closed.
    pub all_unread_bytes: usize,
    /// The timeout of the handshake.
    pub hello: Duration,
    /// The timeout of a request from its first to its last byte.
    pub frame: Duration,
    /// The timeout of a blocked write.
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

/// A quantity shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    /// Takes `amount`, or nothing if the sum would exceed `limit`.
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

/// The load of all connections.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) connections: Gauge,
    pub(super) unread: Gauge,
    pub(super) partial: Gauge,
    /// Notified when `partial` decreases.
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
    /// The requests in flight. Locked after a connection's own state, never before.
    pub(super) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the listener was created.
    pub(super) fn now(&self) -> Instant {
        Instant(self.started.elapsed().as_micros() as u64)
    }
}
