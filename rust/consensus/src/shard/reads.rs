//! Reads of rows, once they may be answered.
//!
//! Keys that are read together are several reads of the disk. Until all are answered nothing more is derived, so that they
//! are of one moment. A range is one read, and the store answers it from one moment by itself.
//!
//! While entries wait for such reads no others begin: else they would keep the rows from moving for ever. When a snapshot
//! takes the place of the rows, reads that are under way begin again after it.

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, Table};
use quorate_protocol::api::{Record, Request, Response, View};
use quorate_protocol::role::Effect;
use quorate_raft::event::{ReadLevel, ReadRequest};

use crate::rows;
use crate::shard::reading::Reading;
use crate::shard::server::Server;
use crate::turn::Turn;

/// About how many bytes of rows one answer has.
const PAGE_BYTES: u32 = 1 << 20;
/// The most rows of one page.
const PAGE_ROWS: u32 = 10_000;

impl Server {
    /// Reads for all whose read index is applied.
    pub(super) fn answer_reads(&mut self, turn: &mut Turn<'_>) {
        if self.host.is_restoring() || self.reads.must_not_be_disturbed() && self.host.has_more() {
            return;
        }
        for question in self.host.take_ready() {
            self.start_reading(question, turn);
        }
    }

    /// The rows go: what is being read of them is read again when there are others.
    pub(super) fn read_again(&mut self) {
        for reading in std::mem::take(&mut self.reads).readings.into_values() {
            self.host.ask_stale(reading.question);
        }
    }

    fn start_reading(&mut self, question: ReadRequest, turn: &mut Turn<'_>) {
        let (group, id) = (self.group, question.id);
        let Some(ask) = self.pending.get(&id) else { return };
        let get = |key| Query::Get {
            table: Table::Groups,
            key: rows::record_key(group, key),
        };
        let range = |range: std::ops::Range<bytes::Bytes>, limit: u32| Query::Range {
            table: Table::Groups,
            start: range.start,
            end: range.end,
            limit_rows: limit.clamp(1, PAGE_ROWS),
            limit_bytes: PAGE_BYTES,
        };
        let queries: Vec<Query> = match &ask.request {
            Request::Read { keys, .. } => keys.iter().map(get).collect(),
            Request::ReadRange {
                start,
                end,
                after_start,
                limit,
                ..
            } => {
                let mut wanted = rows::records(group, start.as_ref(), end.as_ref());
                if *after_start && start.is_some() {
                    // Nothing stands between a row and itself with a zero more.
                    wanted.start = [&wanted.start[..], &[0]].concat().into();
                }
                vec![range(wanted, *limit)]
            }
            Request::ReadLog { after, limit, .. } => vec![range(rows::entries(group, *after), *limit)],
            _ => return,
        };
        let view = View {
            node: self.me,
            leader: self.host.raft().leader(),
            applied: self.host.applied().0,
            staleness_micros: Some(0),
        };
        let applied = self.host.applied();
        let left = queries.len();
        let reading = Reading {
            since: self.host.raft().fresh_since(applied, turn.now.instant),
            question,
            view,
            found: vec![None; left],
            left,
        };
        self.reads.several += usize::from(left > 1);
        self.reads.readings.insert(id, reading);
        for (place, query) in queries.into_iter().enumerate() {
            let token = self.host.token();
            self.reads.tokens.insert(token, (id, place));
            turn.push(Effect::Read { token, query });
        }
        if left == 0 {
            self.end_reading(id, turn);
        }
    }

    /// The disk has answered a read.
    pub(super) fn read_answered(&mut self, token: u64, result: Result<Rows, Error>, turn: &mut Turn<'_>) {
        let Some((id, place)) = self.reads.tokens.remove(&token) else {
            return;
        };
        if let Some(reading) = self.reads.readings.get_mut(&id) {
            reading.found[place] = Some(result);
            reading.left -= 1;
            if reading.left == 0 {
                self.end_reading(id, turn);
            }
        }
    }

    fn end_reading(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(reading) = self.reads.readings.remove(&id) else {
            return;
        };
        let Reading {
            question,
            mut view,
            since,
            found,
            ..
        } = reading;
        if question.level == ReadLevel::Stale {
            // As of the answer, not of the moment at which the rows were asked for.
            let now = turn.now.instant;
            view.staleness_micros = since.map(|since| now.0.saturating_sub(since.0));
        }
        self.reads.several -= usize::from(found.len() > 1);
        let Some(ask) = self.pending.get(&id) else { return };
        let found: Result<Vec<Rows>, Error> = found.into_iter().flatten().collect();
        let answer = found.and_then(|found| respond(&ask.request, found, view));
        self.finish(id, answer, turn);
    }
}

fn respond(request: &Request, found: Vec<Rows>, view: View) -> Result<Response, Error> {
    if let Request::Read { .. } = request {
        let record = |rows: Rows| -> Result<Option<Record>, Error> {
            let value = rows.rows.first().map(|(_, value)| rows::decode_record(value));
            value.transpose()
        };
        let records: Result<_, Error> = found.into_iter().map(record).collect();
        return Ok(Response::Records {
            records: records?,
            view,
        });
    }
    let page = found.into_iter().next().unwrap_or_default();
    if let Request::ReadLog { .. } = request {
        let entries = page
            .rows
            .iter()
            .map(|(row, value)| rows::decode_entry(row, value));
        let entries: Vec<_> = entries.collect::<Result<_, Error>>()?;
        let next = entries.last().map(|entry| entry.id).filter(|_| page.more);
        return Ok(Response::LogPage { entries, next, view });
    }
    let entry = |(row, value): &(bytes::Bytes, bytes::Bytes)| {
        Ok((rows::decode_record_key(row)?, rows::decode_record(value)?))
    };
    let entries: Vec<_> = page.rows.iter().map(entry).collect::<Result<_, Error>>()?;
    let next = entries.last().map(|(key, _)| key.clone()).filter(|_| page.more);
    Ok(Response::RecordPage { entries, next, view })
}
