//! Somewhere to connect to, and when to try again: an endpoint that the user named, or a node of the topology.

use std::time::Duration;

use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::time::Instant;

use super::jitter;

/// The wait after the first failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// An operation that has nowhere to go cuts a wait down to this.
const HURRIED_BACKOFF: Duration = Duration::from_millis(100);

/// Whether there is a connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// No; the next attempt is at this time.
    Down { retry_at: Instant },
    /// It is being established (hello included).
    Dialing { connection: u64 },
    /// Yes.
    Ready { connection: u64 },
    /// Not wanted: an endpoint, while the nodes are known by their topology addresses.
    Spent,
}

/// The last failure to connect, or the loss of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Failure {
    pub(super) at: Instant,
    pub(super) error: Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    /// Where it may be found; tried in turn. Never empty.
    pub(super) addresses: Vec<String>,
    turn: usize,
    pub(super) link: Link,
    /// Since the last success.
    failures: u32,
    pub(super) failure: Option<Failure>,
    /// It has been connected, or an attempt has failed: nobody waits for its first attempt any longer.
    pub(super) tried: bool,
}

impl Endpoint {
    /// To be dialled at once.
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

    /// Makes `address` the first to try; the others stay as alternatives.
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

    /// The hello was answered with a welcome.
    pub(super) fn ready(&mut self, connection: u64) {
        self.link = Link::Ready { connection };
        self.failures = 0;
        self.failure = None;
        self.tried = true;
    }

    /// It is wanted again: to be dialled at once.
    pub(super) fn revive(&mut self, now: Instant) {
        if self.link == Link::Spent {
            self.link = Link::Down { retry_at: now };
        }
    }

    /// Somebody waits for it: the next attempt comes soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Link::Down { retry_at } = &mut self.link {
            let soonest = self
                .failure
                .as_ref()
                .map_or(now, |failure| failure.at + HURRIED_BACKOFF);
            *retry_at = (*retry_at).min(soonest.max(now));
        }
    }

    /// Whether an attempt has failed after `since` and none is under way.
    pub(super) fn failed_after(&self, since: Instant) -> bool {
        matches!(self.link, Link::Down { .. })
            && self.failure.as_ref().is_some_and(|failure| failure.at > since)
    }

    /// Whether nobody listened there at the last attempt.
    pub(super) fn was_refused(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|failure| matches!(failure.error, Error::ConnectionRefused(_)))
    }

    /// Why it cannot be used, for an error message: `host:port (connection refused)`.
    pub(super) fn complaint(&self) -> String {
        let address = &self.addresses[0];
        match &self.failure {
            Some(failure) => format!("{address} ({})", failure.error),
            None => format!("{address} (not tried yet)"),
        }
    }
}
