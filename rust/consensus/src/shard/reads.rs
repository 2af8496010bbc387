//! Row reads of requests that can be answered.
//!
//! Keys that are read together are several reads of the disk. Until all are complete no entries are applied,
//! so that they are of one moment. A range is one read, which the store answers as of one moment.
//!
//! While entries wait for such reads no others start: else they could block the rows for ever. When a
//! snapshot replaces the rows, reads in progress start over after it.

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, Table};
use quorate_protocol::api::{Record, Request, Response, View};
use quorate_protocol::role::Effect;
use quorate_raft::event::{ReadLevel, ReadRequest};

use crate::rows;
use crate::shard::row_read::RowRead;
use crate::shard::server::Server;
use crate::turn::Turn;

/// The approximate size of the rows in an answer.
const PAGE_BYTES: u32 = 1 << 20;
/// The maximum number of rows in a page.
const PAGE_ROWS: u32 = 10_000;

impl Server {
    /// Starts the reads whose read index is applied.
    pub(super) fn answer_reads(&mut self, turn: &mut Turn<'_>) {
        if self.host.is_restoring() || self.reads.pin_rows() && self.host.has_more() {
            return;
        }
        for read in self.host.take_ready() {
            self.start_row_read(read, turn);
        }
    }

    /// The rows are being replaced: reads in progress start over when there are others.
    pub(super) fn restart_reads(&mut self) {
        for row_read in std::mem::take(&mut self.reads).in_progress.into_values() {
            self.host.read_stale(row_read.read);
        }
    }

    fn start_row_read(&mut self, read: ReadRequest, turn: &mut Turn<'_>) {
        let (group, id) = (self.group, read.id);
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
                    // The next possible row after a row is the row with a zero appended.
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
        let row_read = RowRead {
            since: self.host.raft().fresh_since(applied, turn.now.instant),
            read,
            view,
            found: vec![None; left],
            left,
        };
        self.reads.several += usize::from(left > 1);
        self.reads.in_progress.insert(id, row_read);
        for (place, query) in queries.into_iter().enumerate() {
            let token = self.host.token();
            self.reads.tokens.insert(token, (id, place));
            turn.push(Effect::Read { token, query });
        }
        if left == 0 {
            self.finish_row_read(id, turn);
        }
    }

    /// A disk read is complete.
    pub(super) fn read_answered(&mut self, token: u64, result: Result<Rows, Error>, turn: &mut Turn<'_>) {
        let Some((id, place)) = self.reads.tokens.remove(&token) else {
            return;
        };
        if let Some(row_read) = self.reads.in_progress.get_mut(&id) {
            row_read.found[place] = Some(result);
            row_read.left -= 1;
            if row_read.left == 0 {
                self.finish_row_read(id, turn);
            }
        }
    }

    fn finish_row_read(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(row_read) = self.reads.in_progress.remove(&id) else {
            return;
        };
        let RowRead {
            read,
            mut view,
            since,
            found,
            ..
        } = row_read;
        if read.level == ReadLevel::Stale {
            // As of the answer, not of the time of the request.
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
