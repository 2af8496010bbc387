//! Reads by coordinators, and the answers of the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{COUNTER_READ, Read, Replica, SHARE_BYTES, corrupt};
use crate::error::Error;
use crate::key::{Key, decode_record_key, record_key};
use crate::message::{Header, Message};
use crate::role::{Address, Effect, Query, Rng, Rows};
use crate::store::Table;
use crate::telemetry::Span;
use crate::time::Now;
use crate::versions::KeyState;

impl Replica {
    pub(super) fn fetch(
        &mut self,
        key: Key,
        from: Address,
        header: Header,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let token = self.token();
        let query = Query::Get {
            table: Table::Records,
            key: record_key(self.keyspace.id, &key),
        };
        self.reads.insert(token, Read::Fetch(key, from, header, now.wall));
        effects.push(Effect::Read { token, query });
    }

    pub(super) fn fetch_range(
        &mut self,
        range: Range<Bytes>,
        limit: u32,
        (from, header): (Address, Header),
        effects: &mut Vec<Effect>,
    ) {
        if range.is_empty() || limit == 0 {
            let message = Message::FetchedRange {
                rows: Vec::new(),
                more: false,
            };
            effects.push(Effect::Send {
                to: from,
                header,
                message,
            });
            return;
        }
        let token = self.token();
        self.reads.insert(token, Read::Range(from, header));
        let query = Query::Range {
            table: Table::Records,
            start: range.start,
            end: range.end,
            limit_rows: limit,
            limit_bytes: SHARE_BYTES,
        };
        effects.push(Effect::Read { token, query });
    }

    pub(super) fn read(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if token == COUNTER_READ {
            return self.recover_counter(result);
        }
        match self.reads.remove(&token).expect("a read answers once") {
            Read::Slot(key) => self.loaded(key, result, now, effects),
            // Nobody waits for it any longer.
            Read::Fetch(_, _, header, _) | Read::Range(_, header) if header.deadline <= now.instant => {}
            Read::Fetch(key, to, header, since) => {
                let state = decode_state(&key, result);
                if let Some(trace) = header.trace.filter(|trace| trace.sampled) {
                    let me = self.surroundings.me();
                    let span = Span::child(trace, rng, "storage.read", me, since, now.wall);
                    effects.push(Effect::Span(Box::new(span.failed(state.as_ref().err()))));
                }
                let message = match state {
                    Ok(state) => Message::Fetched {
                        state: Arc::new(state.unwrap_or_default()),
                    },
                    Err(error) => {
                        self.tell_corrupt(&key, &error, now, effects);
                        Message::Failed(error)
                    }
                };
                effects.push(Effect::Send { to, header, message });
            }
            Read::Range(to, header) => {
                let message = match result.and_then(|rows| Ok((decode_rows(&rows)?, rows.more))) {
                    Ok((rows, more)) => Message::FetchedRange { rows, more },
                    Err(error) => Message::Failed(error),
                };
                effects.push(Effect::Send { to, header, message });
            }
        }
    }
}

pub(super) fn decode_state(key: &Key, result: Result<Rows, Error>) -> Result<Option<KeyState>, Error> {
    let rows = match result {
        Err(Error::CorruptRecord(_)) => return Err(corrupt(key)),
        other => other?,
    };
    match rows.rows.first() {
        None => Ok(None),
        Some((_, value)) => KeyState::decode(value).map(Some).map_err(|_| corrupt(key)),
    }
}

fn decode_rows(rows: &Rows) -> Result<Vec<(Key, Arc<KeyState>)>, Error> {
    assert!(
        !rows.more || !rows.rows.is_empty(),
        "a store gives at least one row before it stops"
    );
    let decode = |(key, value): &(Bytes, Bytes)| {
        let (_, key) = decode_record_key(key)?;
        let state = KeyState::decode(value).map_err(|_| corrupt(&key))?;
        Ok((key, Arc::new(state)))
    };
    rows.rows.iter().map(decode).collect()
}
