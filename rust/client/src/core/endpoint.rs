//! A configured endpoint or a node of the topology: its addresses, and when to dial it again.

use std::time::Duration;

use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::time::Instant;

use super::jitter;

/// The backoff after the first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The maximum backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// The maximum backoff while an operation waits for it.
const URGENT_BACKOFF: Duration = Duration::from_millis(100);

/// The state of the connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// Not connected; the next attempt is at this time.
    Down { retry_at: Instant },
    /// Being established (handshake included).
    Dialing { connection: u64 },
    /// Yes.
    Ready { connection: u64 },
    /// Not needed: a configured endpoint, while nodes are reachable at their addresses in the topology.
    Unused,
}

/// The last failure to connect, or the loss of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Failure {
    pub(super) at: Instant,
    pub(super) error: Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    /// Its addresses, tried in turn. Never empty.
    pub(super) addresses: Vec<String>,
    turn: usize,
    pub(super) link: Link,
    /// Since the last success.
    failures: u32,
    pub(super) failure: Option<Failure>,
    /// It has been connected, or an attempt has failed: operations no longer wait for its first attempt.
    pub(super) tried: bool,
}

impl Endpoint {
    /// An endpoint that is dialled at once.
    pub(super) fn new(address: String, now: Instant) -> Self {
        Endpoint {
            addresses: vec![address],
            turn: 0,
            link: Link::Down { retry_at: now },
            failures: 0,
            failure: None,
            tried: false,
        }
    }

    /// The address of the next attempt.
    pub(super) fn address(&self) -> &str {
        &self.addresses[self.turn % self.addresses.len()]
    }

    /// Moves `address` to the front; the others stay as alternatives.
    pub(super) fn prefer(&mut self, address: &str) {
        self.addresses.retain(|other| other != address);
        self.addresses.insert(0, address.to_owned());
        self.turn = 0;
    }

    /// An attempt failed or the connection broke.
    pub(super) fn failed(&mut self, now: Instant, error: Error, rng: &mut Rng) {
        let doublings = self.failures.min(10);
        let wait = (FIRST_BACKOFF * (1 << doublings)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.turn = self.turn.wrapping_add(1);
        self.tried = true;
        self.failure = Some(Failure { at: now, error });
        self.link = Link::Down {
            retry_at: now + jitter(wait, rng),
        };
    }

    /// The handshake has succeeded.
    pub(super) fn ready(&mut self, connection: u64) {
        self.link = Link::Ready { connection };
        self.failures = 0;
        self.failure = None;
        self.tried = true;
    }

    /// It is needed again, and dialled at once.
    pub(super) fn revive(&mut self, now: Instant) {
        if self.link == Link::Unused {
            self.link = Link::Down { retry_at: now };
        }
    }

    /// An operation waits for it: the next attempt is made soon.
    pub(super) fn retry_soon(&mut self, now: Instant) {
        if let Link::Down { retry_at } = &mut self.link {
            let soonest = self
                .failure
                .as_ref()
                .map_or(now, |failure| failure.at + URGENT_BACKOFF);
            *retry_at = (*retry_at).min(soonest.max(now));
        }
    }

    /// Whether an attempt has failed after `since` and none is in progress.
    pub(super) fn failed_after(&self, since: Instant) -> bool {
        matches!(self.link, Link::Down { .. })
            && self.failure.as_ref().is_some_and(|failure| failure.at > since)
    }

    /// Whether the last attempt was refused by the address.
    pub(super) fn was_refused(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| matches!(failure.error, Error::ConnectionRefused(_)))
    }

    /// Why it is not usable, for an error message: `host:port (connection refused)`.
    pub(super) fn describe_failure(&self) -> String {
        let address = &self.addresses[0];
        match &self.failure {
            Some(failure) => format!("{address} ({})", failure.error),
            None => format!("{address} (not tried yet)"),
        }
    }
}
