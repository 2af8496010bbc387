//! Which requests a node takes on, and until when they count.
//!
//! Admission stands at the edge and nowhere else: whatever was let in is answered, and so every mailbox behind it is bounded by
//! [`Limits`]. A request beyond them is answered [`Error::Overloaded`] at once, before anything is done about it.
//!
//! ```text
//!   frame ──▶ InFlight::admit ──▶ routing ──▶ a role ──▶ answer ──▶ InFlight::release
//!                  │ Overloaded, LimitExceeded, a deadline that has passed
//!                  └──▶ answered at once
//! ```
//! A request **weighs** what its frame has in bytes, or what it takes in memory if that is more ([`Request::bytes`]): whatever
//! kind it is. One for many keys counts as one for each ([`Request::count`]). It counts for its connection ([`InFlight`]) and for the node ([`Totals`]) until it is answered.
//!
//! This is pure: time comes in, and who drives it (a node's listener, the simulator) keeps one [`Totals`] for the node and one
//! [`InFlight`] for each connection.

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

/// What a request weighs beside its frame: the books that are kept of it.
const OVERHEAD: usize = 256;

/// What a node takes on.
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
    /// A request that nobody has answered this long after its deadline is answered by whoever let it in.
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

/// What a request needs to be answered, kept for as long as it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Whether it may leave something behind.
    pub writes: bool,
    /// Whether it is the control plane's to change: a majority of its voters.
    pub control: bool,
    /// Of which keyspace, if it is about data.
    pub keyspace: Option<KeyspaceId>,
    /// At which level; `None` is the keyspace's own.
    pub level: Option<Level>,
}

impl Need {
    /// What this request needs.
    pub fn of(request: &Request) -> Need {
        Need {
            writes: !request.is_read(),
            control: request.class() == Class::Admin && request.target() == Target::ControlPlane,
            keyspace: request.keyspace(),
            level: request.level(),
        }
    }

    /// How many replicas, or voters of the control plane with so many `members`, have to answer; 1 where nobody can say.
    /// `settings` are those of its keyspace, if they are known.
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

    /// What is answered to one that nobody has answered: its outcome is not known.
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

/// What all connections of a node together have in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Requests.
    pub requests: usize,
    /// What they weigh, in bytes.
    pub bytes: usize,
    /// Requests that were turned down because there were too many, since the start.
    pub refused: u64,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// What it weighs.
    pub bytes: usize,
    /// As how many requests it counts.
    pub count: usize,
    /// Nobody waits for it any longer after this.
    pub deadline: Instant,
    /// What it needs.
    pub need: Need,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A request of this id is in flight already: the client has lost count, and the connection must end.
    Repeated,
    /// It is answered so; nothing was done about it.
    Error(Error),
}

/// The requests of one connection that are in flight.
///
/// Invariant: its count is the sum of what its requests count as, its bytes are the sum of what they weigh, and both are in
/// the node's [`Totals`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InFlight {
    requests: BTreeMap<u64, Pending>,
    count: usize,
    bytes: usize,
}

/// What a request weighs whose frame has `size` bytes.
pub fn weight(request: &Request, size: usize) -> usize {
    size.max(request.bytes()) + OVERHEAD
}

impl InFlight {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// What they weigh.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request of this id is among them.
    pub fn contains(&self, id: u64) -> bool {
        self.requests.contains_key(&id)
    }

    /// Lets a request in whose frame has `size` bytes. `required` says how many replicas answer one; it is asked only for the
    /// words of an error.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn admit(
        &mut self,
        frame: &RequestFrame,
        size: usize,
        now: Instant,
        limits: &Limits,
        totals: &mut Totals,
        required: impl FnOnce(&Need) -> u8,
    ) -> Result<(), Refusal> {
        if self.contains(frame.id) {
            return Err(Refusal::Repeated);
        }
        frame.request.validate().map_err(Refusal::Error)?;
        let need = Need::of(&frame.request);
        if frame.deadline_ms == 0 {
            return Err(Refusal::Error(match need.writes {
                true => Error::Overloaded(
                    "the deadline had passed when the request arrived; nothing was done about it: raise the timeout"
                        .to_owned(),
                ),
                false => need.unanswered(required(&need)),
            }));
        }
        let bytes = weight(&frame.request, size);
        let count = frame.request.count();
        if let Some(full) = self.full((count, bytes), limits, totals) {
            totals.refused += 1;
            return Err(Refusal::Error(Error::Overloaded(format!(
                "{full}: nothing was done about this one; wait a moment and try again, or use fewer clients"
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

    /// What there is too much of for another request that counts as so many, of so many bytes. One for many keys that is alone
    /// is not too many.
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

    /// A request is in flight no longer, if it was.
    pub fn release(&mut self, id: u64, totals: &mut Totals) -> Option<Pending> {
        let pending = self.requests.remove(&id)?;
        self.count -= pending.count;
        self.bytes -= pending.bytes;
        totals.requests -= pending.count;
        totals.bytes -= pending.bytes;
        Some(pending)
    }

    /// None is in flight any longer.
    pub fn release_all(&mut self, totals: &mut Totals) {
        for id in self.requests.keys().copied().collect::<Vec<u64>>() {
            self.release(id, totals);
        }
    }

    /// Those that should have been answered long ago.
    pub fn overdue(&self, now: Instant, limits: &Limits) -> Vec<u64> {
        let late = |pending: &Pending| pending.deadline + limits.overdue <= now;
        let late = self.requests.iter().filter(|(_, pending)| late(pending));
        late.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
