//! The state of one session.

use std::time::Duration;

use quorate_core::time::Instant;

use crate::link::batch::{BatchWriter, Frame, read_header};
use crate::link::bulk::{Arrived, Assembly};
use crate::link::credit::{Amount, ReceiveCredit, SendCredit};
use crate::link::event::{CloseReason, SessionId};
use crate::link::settings::LinkSettings;
use crate::message::BULK_THRESHOLD;
use crate::wire::Envelope;

/// One session as one end sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// A batch was transmitted and [`LinkEvent::Sent`](super::LinkEvent::Sent) has not arrived.
    pub(super) outstanding: bool,
    /// A batch has arrived.
    pub(super) up: bool,
    /// When the last batch arrived; initially, when the session began.
    pub(super) heard: Instant,
    /// When to send the next ping.
    pub(super) next_ping: Instant,
    /// The next batch must have a ping.
    pub(super) ping_due: bool,
    pong_due: Option<u64>,
    pub(super) round_trip: Option<Duration>,
    next_out: u64,
    next_in: u64,
    /// The number of the next envelope that is sent in chunks.
    next_transfer: u64,
    pub(super) send_credit: SendCredit,
    pub(super) receive_credit: ReceiveCredit,
    assembly: Assembly,
}

/// The contents of a batch.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// The batch arrived before.
    pub(super) duplicate: bool,
    pub(super) envelopes: Vec<Envelope>,
    pub(super) bytes: u64,
    pub(super) count: u64,
    /// Envelopes whose deadline had passed when they were complete.
    pub(super) expired: u64,
}

impl Session {
    pub(super) fn new(id: SessionId, settings: &LinkSettings, now: Instant) -> Self {
        Session {
            id,
            outstanding: false,
            up: false,
            heard: now,
            next_ping: now + settings.heartbeat,
            ping_due: true,
            pong_due: None,
            round_trip: None,
            next_out: 0,
            next_in: 0,
            next_transfer: 0,
            send_credit: SendCredit::default(),
            receive_credit: ReceiveCredit::new(settings.window_bytes, settings.window_count),
            assembly: Assembly::default(),
        }
    }

    /// The next batch, beginning with heartbeats and credit.
    pub(super) fn batch(&mut self, now: Instant, expected: usize) -> BatchWriter {
        let mut batch = BatchWriter::new(self.id, self.next_out, expected);
        if let Some(at) = self.pong_due.take() {
            batch.pong(at);
        }
        if std::mem::take(&mut self.ping_due) {
            batch.ping(now.0);
        }
        if let Some(grant) = self.receive_credit.due() {
            batch.credit(&grant);
            self.receive_credit.announce();
        }
        batch
    }

    /// Ends a batch, and adds changed credit if it is not empty.
    pub(super) fn finish(&mut self, mut batch: BatchWriter) -> Option<Vec<u8>> {
        if !batch.is_empty()
            && batch.room() > super::batch::CONTROL_FRAMES
            && let Some(grant) = self.receive_credit.changed()
        {
            batch.credit(&grant);
            self.receive_credit.announce();
        }
        let bytes = batch.finish()?;
        self.next_out += 1;
        self.outstanding = true;
        Some(bytes)
    }

    pub(super) fn take_transfer_number(&mut self) -> u64 {
        let number = self.next_transfer;
        self.next_transfer += 1;
        number
    }

    /// The bytes of envelopes that arrived and were not taken by roles, including the partial one.
    pub(super) fn held_bytes(&self) -> u64 {
        self.receive_credit
            .untaken()
            .bytes
            .max(self.assembly.bytes() as u64)
    }

    /// Reads a batch into `arrivals`; envelopes before an error are kept.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        batch: &[u8],
        arrivals: &mut Arrivals,
    ) -> Result<(), CloseReason> {
        let (id, sequence, frames) = read_header(batch)?;
        if id != self.id {
            return Err(CloseReason::Violation(format!("a batch of session {:x}", id.0)));
        }
        if sequence < self.next_in {
            arrivals.duplicate = true;
            return Ok(());
        }
        if sequence > self.next_in {
            return Err(CloseReason::Violation(format!(
                "batch {sequence} arrived but {} is missing",
                self.next_in
            )));
        }
        self.next_in += 1;
        self.heard = now;
        for frame in frames {
            self.frame(now, frame?, arrivals)?;
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant, frame: Frame<'_>, arrivals: &mut Arrivals) -> Result<(), CloseReason> {
        match frame {
            Frame::Ping { at } => self.pong_due = Some(at),
            Frame::Pong { at } if at <= now.0 => self.round_trip = Some(now.since(Instant(at))),
            Frame::Pong { .. } => return Err(violation("a pong without a ping")),
            Frame::Credit(grant) => self.send_credit.granted(grant).map_err(CloseReason::Violation)?,
            Frame::Control(encoded) if encoded.len() <= BULK_THRESHOLD => {
                self.arrived(now, Envelope::decode(now, encoded)?, Amount::default(), arrivals);
            }
            Frame::Data(encoded) if encoded.len() <= BULK_THRESHOLD => {
                self.admit(encoded.len())?;
                let credit = Amount::of(encoded.len());
                self.arrived(now, Envelope::decode(now, encoded)?, credit, arrivals);
            }
            Frame::Control(_) | Frame::Data(_) => return Err(violation("bulk outside chunks")),
            Frame::Chunk(chunk) => {
                match self.assembly.classify(&chunk).map_err(CloseReason::Violation)? {
                    Arrived::Duplicate => return Ok(()),
                    Arrived::First(total) => self.admit(total)?,
                    Arrived::Next => {}
                }
                self.receive_credit.receive_chunk();
                if let Some((encoded, begun)) = self.assembly.add(&chunk, now) {
                    let credit = Amount::of(encoded.len());
                    self.arrived(now, Envelope::decode(begun, &encoded)?, credit, arrivals);
                }
            }
        }
        Ok(())
    }

    /// An envelope is complete. If its deadline has passed, its credit is returned immediately.
    fn arrived(&mut self, now: Instant, envelope: Envelope, credit: Amount, arrivals: &mut Arrivals) {
        if envelope.header.deadline <= now {
            self.receive_credit.take(credit.bytes, credit.count);
            arrivals.expired += 1;
            return;
        }
        arrivals.envelopes.push(envelope);
        arrivals.bytes += credit.bytes;
        arrivals.count += credit.count;
    }

    fn admit(&mut self, size: usize) -> Result<(), CloseReason> {
        if self.receive_credit.receive(size) {
            Ok(())
        } else {
            Err(violation("credit exceeded"))
        }
    }
}

fn violation(what: &str) -> CloseReason {
    CloseReason::Violation(what.to_owned())
}
