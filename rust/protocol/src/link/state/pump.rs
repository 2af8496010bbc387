//! Making batches.

use quorate_core::time::Instant;

use crate::link::batch::{BatchWriter, CONTROL_FRAMES, ENVELOPE_FRAME};
use crate::link::bulk::BulkQueue;
use crate::link::event::{LinkEffect, ShedCause};
use crate::link::lane::Queue;
use crate::link::session::Session;
use crate::link::settings::{CHUNK_BYTES, MAX_BATCH};
use crate::link::state::Link;

impl Link {
    /// Makes a batch of what may go now, if the last one is out and there is anything.
    pub(super) fn pump(&mut self, now: Instant, effects: &mut Vec<LinkEffect>) {
        let before = self.queued_envelopes();
        let mut expired = 0;
        let Some(bytes) = self.next_batch(now, &mut expired) else {
            self.count_shed(ShedCause::Expired, expired);
            return;
        };
        self.totals.sent_envelopes += before - self.queued_envelopes() - expired;
        self.totals.sent_batches += 1;
        self.totals.sent_bytes += bytes.len() as u64;
        effects.push(LinkEffect::Transmit {
            session: self.session().expect("a batch is made for a session"),
            batch: bytes.into(),
        });
        self.count_shed(ShedCause::Expired, expired);
    }

    fn next_batch(&mut self, now: Instant, expired: &mut u64) -> Option<Vec<u8>> {
        let session = self.session.as_mut().filter(|session| !session.outstanding)?;
        let window = self.settings.window_chunks;
        // Bulk takes its credit before data does, and while it must wait for it data waits too: or else a steady
        // stream of data would starve it.
        let starves = !begin_bulk(session, &mut self.bulk, &self.data, now, expired);
        let data = |session: &Session, size: usize| !starves && session.spending.allows(size);
        let bulk_ready = self.bulk.under_way() && session.spending.outstanding_chunks() < window;
        let data_ready = self
            .data
            .front(now, expired)
            .is_some_and(|size| data(session, size));

        let mut expected = CONTROL_FRAMES + self.control.bytes() + self.control.len() * ENVELOPE_FRAME;
        if data_ready {
            expected += self.data.bytes() + self.data.len() * ENVELOPE_FRAME;
        }
        if bulk_ready {
            expected += MAX_BATCH;
        }
        let mut batch = session.batch(now, expected);
        while let Some(size) = self.control.front(now, expired)
            && batch.room() >= ENVELOPE_FRAME + size
        {
            self.control.pop_into(&mut batch, now);
        }
        let reserved = if bulk_ready { CHUNK_BYTES } else { 0 };
        while let Some(size) = self.data.front(now, expired)
            && batch.room() >= ENVELOPE_FRAME + size + reserved
            && data(session, size)
        {
            session.spending.spend(size);
            self.data.pop_into(&mut batch, now);
        }
        chunks(
            session,
            (&mut self.bulk, &self.data),
            window,
            &mut batch,
            now,
            expired,
        );
        self.control.compact();
        self.data.compact();
        session.finish(batch)
    }
}

/// Begins the next large envelope if none is under way and its turn has come; false if it lacks the credit.
fn begin_bulk(
    session: &mut Session,
    bulk: &mut BulkQueue,
    data: &Queue,
    now: Instant,
    expired: &mut u64,
) -> bool {
    if bulk.under_way() {
        return true;
    }
    let Some(size) = bulk.front(data, now, expired) else {
        return true;
    };
    if !session.spending.allows(size) {
        return false;
    }
    session.spending.spend(size);
    bulk.begin(session.take_transfer_number(), now);
    true
}

/// Fills what room is left with chunks, as far as their window goes.
fn chunks(
    session: &mut Session,
    (bulk, data): (&mut BulkQueue, &Queue),
    window: u64,
    batch: &mut BatchWriter,
    now: Instant,
    expired: &mut u64,
) {
    while batch.room() >= CHUNK_BYTES
        && session.spending.outstanding_chunks() < window
        && begin_bulk(session, bulk, data, now, expired)
        && bulk.under_way()
    {
        session.spending.spend_chunk(window);
        bulk.next_chunk(|chunk| batch.chunk(chunk));
    }
}
