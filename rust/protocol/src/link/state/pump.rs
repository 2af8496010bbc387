//! Building batches.

use quorate_core::time::Instant;

use crate::link::batch::{BatchWriter, CONTROL_FRAMES, ENVELOPE_FRAME};
use crate::link::bulk::BulkQueue;
use crate::link::event::{LinkEffect, ShedCause};
use crate::link::lane::Queue;
use crate::link::session::Session;
use crate::link::settings::{CHUNK_BYTES, MAX_BATCH};
use crate::link::state::Link;

impl Link {
    /// Transmits a batch of the messages that may be sent, if there are any and the last batch has been sent.
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
            session: self.session().expect("a batch is built for a session"),
            batch: bytes.into(),
        });
        self.count_shed(ShedCause::Expired, expired);
    }

    fn next_batch(&mut self, now: Instant, expired: &mut u64) -> Option<Vec<u8>> {
        let session = self.session.as_mut().filter(|session| !session.outstanding)?;
        let window = self.settings.window_chunks;
        // Bulk takes credit before data, and data waits while bulk lacks credit: otherwise a steady stream of data would
        // starve it.
        let starves = !begin_bulk(session, &mut self.bulk, &self.data, now, expired);
        let data = |session: &Session, size: usize| !starves && session.send_credit.allows(size);
        let bulk_ready = self.bulk.in_progress() && session.send_credit.outstanding_chunks() < window;
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
            session.send_credit.spend(size);
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

/// Begins the next large envelope if none is being sent and its order allows it; false if it lacks credit.
fn begin_bulk(
    session: &mut Session,
    bulk: &mut BulkQueue,
    data: &Queue,
    now: Instant,
    expired: &mut u64,
) -> bool {
    if bulk.in_progress() {
        return true;
    }
    let Some(size) = bulk.front(data, now, expired) else {
        return true;
    };
    if !session.send_credit.allows(size) {
        return false;
    }
    session.send_credit.spend(size);
    bulk.begin(session.take_transfer_number(), now);
    true
}

/// Fills the rest of the batch with chunks, within their window.
fn chunks(
    session: &mut Session,
    (bulk, data): (&mut BulkQueue, &Queue),
    window: u64,
    batch: &mut BatchWriter,
    now: Instant,
    expired: &mut u64,
) {
    while batch.room() >= CHUNK_BYTES
        && session.send_credit.outstanding_chunks() < window
        && begin_bulk(session, bulk, data, now, expired)
        && bulk.in_progress()
    {
        session.send_credit.spend_chunk(window);
        bulk.next_chunk(|chunk| batch.chunk(chunk));
    }
}
