//! The encoding of envelopes.

use std::time::Duration;

use postcard::ser_flavors::Flavor;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::message::{Header, Message};
use crate::role::RoleId;
use crate::telemetry::TraceContext;
use crate::wire::error::WireError;

/// The size of the deadline at the beginning of an encoded envelope, in bytes.
pub const DEADLINE_BYTES: usize = 4;

/// On the wire: no deadline.
const NO_DEADLINE: u32 = u32::MAX;

/// One message of a role on one node to a role on another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// Which role of the sending node sent it.
    pub from: RoleId,
    /// Which role of the receiving node it is for.
    pub to: RoleId,
    /// Deadline, trace and request id.
    pub header: Header,
    /// The message.
    pub message: Message,
}

/// The part after the deadline, borrowed from an envelope.
#[derive(Serialize)]
struct BodyRef<'a> {
    from: RoleId,
    to: RoleId,
    generation: u64,
    request: u64,
    trace: &'a Option<TraceContext>,
    message: &'a Message,
}

/// The part after the deadline, decoded.
#[derive(Deserialize)]
struct Body {
    from: RoleId,
    to: RoleId,
    generation: u64,
    request: u64,
    trace: Option<TraceContext>,
    message: Message,
}

/// A postcard flavor that appends to a borrowed buffer.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Envelope {
    /// Appends the encoded envelope to `buffer`, with the time left at `now`.
    pub fn encode(&self, now: Instant, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&milliseconds_left(now, self.header.deadline).to_le_bytes());
        let body = BodyRef {
            from: self.from,
            to: self.to,
            generation: self.header.generation,
            request: self.header.request,
            trace: &self.header.trace,
            message: &self.message,
        };
        // Appending to a vector cannot fail, and every type of message is serializable.
        postcard::serialize_with_flavor(&body, Append(buffer)).expect("every message is serializable");
    }

    /// Decodes an envelope that arrived at `now`. It must occupy all of `bytes`.
    ///
    /// # Errors
    /// [`WireError`] for malformed bytes.
    pub fn decode(now: Instant, bytes: &[u8]) -> Result<Envelope, WireError> {
        let Some((deadline, rest)) = bytes.split_first_chunk::<DEADLINE_BYTES>() else {
            return Err(WireError::TooShort {
                what: "envelope",
                size: bytes.len(),
            });
        };
        let (body, rest) = postcard::take_from_bytes::<Body>(rest)
            .map_err(|error| WireError::malformed("envelope", error))?;
        if !rest.is_empty() {
            return Err(WireError::Trailing {
                what: "envelope",
                extra: rest.len(),
            });
        }
        let deadline = match u32::from_le_bytes(*deadline) {
            NO_DEADLINE => Instant::NEVER,
            left => now + Duration::from_millis(u64::from(left)),
        };
        Ok(Envelope {
            from: body.from,
            to: body.to,
            header: Header {
                generation: body.generation,
                request: body.request,
                deadline,
                trace: body.trace,
            },
            message: body.message,
        })
    }
}

/// Sets the deadline of an encoded envelope to the time left at `now`.
///
/// # Panics
/// If `encoded` is shorter than [`DEADLINE_BYTES`]: it is not an envelope.
pub fn stamp_deadline(encoded: &mut [u8], now: Instant, deadline: Instant) {
    encoded[..DEADLINE_BYTES].copy_from_slice(&milliseconds_left(now, deadline).to_le_bytes());
}

/// Rounded down, so that no hop extends the deadline.
fn milliseconds_left(now: Instant, deadline: Instant) -> u32 {
    if deadline == Instant::NEVER {
        return NO_DEADLINE;
    }
    u32::try_from(deadline.since(now).as_millis()).map_or(NO_DEADLINE - 1, |left| left.min(NO_DEADLINE - 1))
}
