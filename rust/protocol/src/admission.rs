//! Admission control: which requests a node accepts, and how long they count.
//!
//! Requests are admitted only at the edge: every admitted request is answered, so every mailbox behind it is bounded by
//! [`Limits`]. A request beyond them is rejected as [`Error::Overloaded`] immediately, before anything is executed.
//!
//! ```text
//!   frame ──▶ InFlight::admit ──▶ routing ──▶ a role ──▶ answer ──▶ InFlight::release
//!                  │ Overloaded, LimitExceeded, a deadline that has passed
//!                  └──▶ answered immediately
//! ```
//! The **weight** of a request is the size of its frame in bytes, or its size in memory if that is larger
//! ([`Request::bytes`]). A request for many keys counts as one request per key ([`Request::count`]). It counts for its
//! connection ([`InFlight`]) and for the node ([`Totals`]) until it is answered.
//!
//! This is pure: time is an argument, and the driver (a node's listener, the simulator) keeps one [`Totals`] for the node
//! and one [`InFlight`] for each connection.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::level::Level;
use quorate_core::time::Instant;

use crate::api::request::{Class, Target};
use crate::api::{Request, RequestFrame};
use crate::keyspace::KeyspaceSettings;
use crate::topology::MAX_VOTERS;

/// The weight of a request besides its frame: its bookkeeping.
const OVERHEAD: usize = 256;

/// The maximum load that a node accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Requests in flight on all connections.
    pub requests: usize,
    /// Bytes of requests in flight on all connections.
    pub request_bytes: usize,
    /// Requests in flight on one connection.
    pub connection_requests: usize,
    /// Bytes of requests in flight on one connection.
    pub connection_bytes: usize,
    /// The edge answers a request that is still pending this long after its deadline.
    pub overdue: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            requests: 16_384,
            request_bytes: 256 << 20,
            connection_requests: 8_192,
            connection_bytes: 64 << 20,
            overdue: Duration::from_secs(1),
        }
    }
}

/// What a request requires to be answered, kept while it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Whether it may have an effect.
    pub writes: bool,
    /// Whether it changes the control plane, which requires a majority of its voters.
    pub control: bool,
    /// The keyspace of a data request.
    pub keyspace: Option<KeyspaceId>,
    /// The level; `None` is the keyspace's default.
    pub level: Option<Level>,
}

impl Need {
    /// The requirements of this request.
    pub fn of(request: &Request) -> Need {
        Need {
            writes: !request.is_read(),
            control: request.class() == Class::Admin && request.target() == Target::ControlPlane,
            keyspace: request.keyspace(),
            level: request.level(),
        }
    }

    /// The number of replicas, or of voters of a control plane with `members` members, that must respond; 1 if unknown.
    /// `settings` are those of its keyspace, if known.
    pub fn required(&self, members: usize, settings: Option<&KeyspaceSettings>) -> u8 {
        if self.control {
            return (members.min(MAX_VOTERS) / 2 + 1) as u8;
        }
        let of = |settings: &KeyspaceSettings| {
            let usual = match self.writes {
                true => settings.write_level,
                false => settings.read_level,
            };
            self.level.unwrap_or(usual).required(settings.replicas).ok()
        };
        settings.and_then(of).unwrap_or(1)
    }

    /// The error of a request without a response: its outcome is unknown.
    pub fn unanswered(&self, required: u8) -> Error {
        match self.writes {
            true => Error::OutcomeUnknown {
                acked: 0,
                required,
                reason: None,
            },
            false => Error::ReadTimeout {
                answered: 0,
                required,
            },
        }
    }
}

/// The requests in flight on all connections of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Requests.
    pub requests: usize,
    /// Their weight, in bytes.
    pub bytes: usize,
    /// Requests that were rejected as overload since the start.
    pub rejected: u64,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// Its weight.
    pub bytes: usize,
    /// The number of requests as which it counts.
    pub count: usize,
    /// Its client stops waiting at this time.
    pub deadline: Instant,
    /// Its requirements.
    pub need: Need,
}

/// Why a request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A request with this id is in flight already: the client violates the protocol, and the connection must end.
    Duplicate,
    /// The response; the request was not executed.
    Error(Error),
}

/// The requests of one connection that are in flight.
///
/// Invariant: its count and bytes are the sums of its requests' counts and weights, and both are included in the node's
/// [`Totals`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InFlight {
    requests: BTreeMap<u64, Pending>,
    count: usize,
    bytes: usize,
}

/// The weight of a request whose frame has `size` bytes.
pub fn weight(request: &Request, size: usize) -> usize {
    size.max(request.bytes()) + OVERHEAD
}

impl InFlight {
    /// The number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Their weight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request with this id is among them.
    pub fn contains(&self, id: u64) -> bool {
        self.requests.contains_key(&id)
    }

    /// Admits a request whose frame has `size` bytes. `required` returns the number of replicas that must respond; it is
    /// called only for the text of an error.
    ///
    /// # Errors
    /// [`Rejection`]; nothing has changed then.
    pub fn admit(
        &mut self,
        frame: &RequestFrame,
        size: usize,
        now: Instant,
        limits: &Limits,
        totals: &mut Totals,
        required: impl FnOnce(&Need) -> u8,
    ) -> Result<(), Rejection> {
        if self.contains(frame.id) {
            return Err(Rejection::Duplicate);
        }
        frame.request.validate().map_err(Rejection::Error)?;
        let need = Need::of(&frame.request);
        if frame.deadline_ms == 0 {
            return Err(Rejection::Error(match need.writes {
                true => Error::Overloaded(
                    "deadline passed before the request arrived; nothing was executed: raise the timeout"
                        .to_owned(),
                ),
                false => need.unanswered(required(&need)),
            }));
        }
        let bytes = weight(&frame.request, size);
        let count = frame.request.count();
        if let Some(full) = self.full((count, bytes), limits, totals) {
            totals.rejected += 1;
            return Err(Rejection::Error(Error::Overloaded(format!(
                "{full}: the request was rejected; retry later, or use fewer clients"
            ))));
        }
        self.count += count;
        self.bytes += bytes;
        totals.requests += count;
        totals.bytes += bytes;
        let pending = Pending {
            bytes,
            count,
            deadline: now + Duration::from_millis(u64::from(frame.deadline_ms)),
            need,
        };
        self.requests.insert(frame.id, pending);
        Ok(())
    }

    /// The limit that another request with this count and weight would exceed, if any. A request for many keys that is the
    /// only one never exceeds the counts.
    fn full(&self, (count, bytes): (usize, usize), limits: &Limits, totals: &Totals) -> Option<String> {
        let (requests, held) = (self.count, self.bytes);
        let over = |held: usize, limit: usize| held >= limit || held > 0 && held + count > limit;
        if over(requests, limits.connection_requests) {
            Some(format!("{requests} requests are in flight on this connection"))
        } else if held + bytes > limits.connection_bytes {
            Some(format!(
                "requests of {held} bytes are in flight on this connection"
            ))
        } else if over(totals.requests, limits.requests) {
            Some(format!("{} requests are in flight on this node", totals.requests))
        } else if totals.bytes + bytes > limits.request_bytes {
            Some(format!(
                "requests of {} bytes are in flight on this node",
                totals.bytes
            ))
        } else {
            None
        }
    }

    /// Removes a request that is no longer in flight.
    pub fn release(&mut self, id: u64, totals: &mut Totals) -> Option<Pending> {
        let pending = self.requests.remove(&id)?;
        self.count -= pending.count;
        self.bytes -= pending.bytes;
        totals.requests -= pending.count;
        totals.bytes -= pending.bytes;
        Some(pending)
    }

    /// Removes all requests.
    pub fn release_all(&mut self, totals: &mut Totals) {
        for id in self.requests.keys().copied().collect::<Vec<u64>>() {
            self.release(id, totals);
        }
    }

    /// The requests that are still pending too long after their deadlines.
    pub fn overdue(&self, now: Instant, limits: &Limits) -> Vec<u64> {
        let late = |pending: &Pending| pending.deadline + limits.overdue <= now;
        let late = self.requests.iter().filter(|(_, pending)| late(pending));
        late.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
