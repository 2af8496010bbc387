//! Submission of operations: validation, admission, and the fields that the client fills in.

use quorate_core::error::Error;
use quorate_protocol::api::Request;
use quorate_versions::WriteId;
use rand_core::Rng as _;

use super::many::PARTS;
use super::operation::{Draft, Operation};
use super::{CallOptions, ClientCore, ClientEffect, MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT, Step, Trace, unsent};

impl ClientCore {
    pub(super) fn submit(&mut self, op: u64, request: Request, options: CallOptions, step: &mut Step<'_>) {
        assert!(op > 0 && op < PARTS, "operation {op}: ids are 1 to 2^54 - 1");
        assert!(
            !self.operations.contains_key(&op) && !self.many.contains_key(&op),
            "operation {op} is in flight already"
        );
        let Some(mut request) = self.submit_many(op, request, options, step) else {
            return;
        };
        let bytes = request.bytes();
        if let Err(error) = self.admit(bytes).and_then(|()| request.validate()) {
            let outcome = unsent(error);
            return step.effects.push(ClientEffect::Complete { op, outcome });
        }
        if let Some(write_id) = request.write_id() {
            self.write_sequence += 1;
            *write_id = WriteId {
                client: self.config.client_id,
                sequence: self.write_sequence,
            };
        }
        // A command without a session gets one of the client's.
        let queued = match &request {
            Request::Propose {
                keyspace,
                group,
                session: None,
                ..
            } => Some((*keyspace, *group)),
            _ => None,
        };
        let operation = Operation {
            bytes,
            ..Operation::new(request, options, step.instant(), draft(options.trace, step))
        };
        self.timers.insert((operation.timer, op));
        self.operations.insert(op, operation);
        self.bytes_in_flight += bytes;
        match queued {
            Some((keyspace, group)) => self.enqueue(op, keyspace, group),
            None => self.route(op, step),
        }
    }

    /// Admits an operation of this many bytes, or rejects it as overloaded.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Error> {
        let full = if self.operations.len() + self.many.len() >= MAX_IN_FLIGHT {
            format!("{MAX_IN_FLIGHT} operations")
        } else if self.bytes_in_flight > 0 && self.bytes_in_flight + bytes > MAX_BYTES_IN_FLIGHT {
            format!("{} MiB", self.bytes_in_flight >> 20)
        } else {
            return Ok(());
        };
        Err(Error::Overloaded(format!(
            "this client has {full} in flight: wait for some of them"
        )))
    }
}

/// The start of an operation's span, if it is sampled.
pub(super) fn draft(trace: Trace, step: &mut Step<'_>) -> Option<Draft> {
    let (trace_id, parent_id) = match trace {
        Trace::Off => return None,
        Trace::New => {
            let (high, low) = (step.rng.next_u64(), step.rng.next_u64());
            (u128::from(high) << 64 | u128::from(low).max(1), 0)
        }
        Trace::Child(parent) if parent.sampled => (parent.trace_id, parent.span_id),
        Trace::Child(_) => return None,
    };
    Some(Draft {
        trace_id,
        span_id: step.rng.next_u64().max(1),
        parent_id,
        start: step.now.wall,
    })
}
