//! Reads by coordinators, and the answers of the store.

use std::sync::Arc;

use super::{COUNTER_READ, Read, Replica, corrupt};
use crate::error::Error;
use crate::key::{Key, decode_record_key, record_key};
use crate::message::{Header, Message};
use crate::role::{Address, Effect, Query, Rng, Rows};
use crate::store::Table;
use crate::telemetry::{Span, TimelineEvent};
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

    pub(super) fn read(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if token == COUNTER_READ {
            return self.recover_counter(result, now, effects);
        }
        match self.reads.remove(&token).expect("a read answers once") {
            Read::Slot(key) => self.loaded(key, result, now, effects),
            Read::Fetch(key, to, header, since) => {
                let message = match decode_state(&key, result) {
                    Ok(state) => Message::Fetched {
                        state: Arc::new(state.unwrap_or_default()),
                    },
                    Err(error) => {
                        effects.push(Effect::Emit(TimelineEvent::CorruptRecord {
                            record: error.to_string(),
                        }));
                        Message::Failed(error)
                    }
                };
                if let Some(trace) = header.trace.filter(|trace| trace.sampled) {
                    let me = self.surroundings.me();
                    let span = Span::child(trace, rng, "storage.read", me, since, now.wall);
                    effects.push(Effect::Span(Box::new(span)));
                }
                effects.push(Effect::Send { to, header, message });
            }
            Read::Range(to, header) => {
                let message = match result.and_then(|rows| decode_rows(&rows).map(|page| (page, rows.more))) {
                    Ok((rows, more)) => Message::FetchedRange { rows, more },
                    Err(error) => Message::Failed(error),
                };
                effects.push(Effect::Send { to, header, message });
            }
        }
    }
}

pub(super) fn decode_state(key: &Key, result: Result<Rows, Error>) -> Result<Option<KeyState>, Error> {
    match result?.rows.first() {
        None => Ok(None),
        Some((_, value)) => KeyState::decode(value).map(Some).map_err(|_| corrupt(key)),
    }
}

fn decode_rows(rows: &Rows) -> Result<Vec<(Key, Arc<KeyState>)>, Error> {
    let decode = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
        let (_, key) = decode_record_key(key).map_err(|error| Error::CorruptRecord(error.to_string()))?;
        let state = KeyState::decode(value).map_err(|_| corrupt(&key))?;
        Ok((key, Arc::new(state)))
    };
    rows.rows.iter().map(decode).collect()
}
