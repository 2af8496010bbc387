//! Reads by coordinators, and the results of the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::key::{Key, decode_record_key, index_key, record_key};
use quorate_core::store::{Query, Rows, Table};
use quorate_core::time::{Now, WallTime};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect};
use quorate_protocol::telemetry::Span;
use quorate_versions::KeyState;

use super::{COUNTER_READ, Lookup, Purpose, Read, Replica, SHARE_BYTES, corrupt};

impl Replica {
    pub(super) fn fetch(
        &mut self,
        key: Key,
        from: Address,
        header: Header,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if !self.owns(&key) {
            let message = Message::Failed(self.misdirected(&key));
            return self.send(from, header, message, effects);
        }
        let purpose = Purpose::Fetch(from, header, now.wall);
        self.lookup(key, Lookup::Record, purpose, effects);
    }

    /// Starts a step of the read of a key's state.
    pub(super) fn lookup(&mut self, key: Key, lookup: Lookup, purpose: Purpose, effects: &mut Vec<Effect>) {
        let query = match lookup {
            Lookup::Record | Lookup::RecordAgain => Query::Get {
                table: Table::Records,
                key: record_key(self.keyspace.id, &key),
            },
            Lookup::Index => Query::Get {
                table: Table::TokenIndex,
                key: index_key(self.keyspace.id, self.preference.token(&key).0, &key),
            },
        };
        let token = self.token();
        self.reads.insert(token, Read::Point(key, lookup, purpose));
        effects.push(Effect::Read { token, query });
    }

    pub(super) fn fetch_range(
        &mut self,
        range: Range<Bytes>,
        limit: u32,
        (from, header): (Address, Header),
        effects: &mut Vec<Effect>,
    ) {
        let me = self.surroundings.me();
        if !self.preference.lists().any(|list| list.contains(&me)) {
            let message = Message::Failed(self.misdirected("any key"));
            return self.send(from, header, message, effects);
        }
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
        match self.reads.remove(&token).expect("a read completes once") {
            // Its deadline has passed.
            Read::Point(_, _, Purpose::Fetch(_, header, _)) | Read::Range(_, header)
                if header.deadline <= now.instant => {}
            Read::Point(key, lookup, purpose) => match lookup_step(&key, lookup, result) {
                LookupStep::Next(lookup) => self.lookup(key, lookup, purpose, effects),
                LookupStep::State(state) => match purpose {
                    Purpose::KeyLock => self.loaded(key, state, now, effects),
                    Purpose::Fetch(to, header, since) => {
                        self.fetched(key, state, (to, header, since), now, rng, effects);
                    }
                },
            },
            Read::Range(to, header) => {
                let rows = match result {
                    // The store's message is about the whole node; this is one record, and can be healed.
                    Err(Error::CorruptRecord(_)) => Err(Error::CorruptRecord(format!(
                        "a record in the scanned range is unreadable on {}: scan again while all nodes are up, or read \
                         the range's keys one by one, which heals it, then check the disk",
                        self.surroundings.me()
                    ))),
                    other => other,
                };
                let message = match rows.and_then(|rows| Ok((decode_rows(&rows)?, rows.more))) {
                    Ok((rows, more)) => Message::FetchedRange { rows, more },
                    Err(error) => Message::Failed(error),
                };
                self.send(to, header, message, effects);
            }
        }
    }

    /// Responds to a `Fetch`.
    fn fetched(
        &mut self,
        key: Key,
        state: Result<Option<KeyState>, Error>,
        (to, header, since): (Address, Header, WallTime),
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
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
                self.report_corrupt(&key, &error, now, effects);
                Message::Failed(error)
            }
        };
        self.send(to, header, message, effects);
    }
}

/// The result of a step of the read of a key.
enum LookupStep {
    Next(Lookup),
    State(Result<Option<KeyState>, Error>),
}

fn lookup_step(key: &Key, lookup: Lookup, result: Result<Rows, Error>) -> LookupStep {
    let absent = matches!(&result, Ok(rows) if rows.rows.is_empty());
    match lookup {
        Lookup::Record if absent => LookupStep::Next(Lookup::Index),
        Lookup::Index if absent => LookupStep::State(Ok(None)),
        // It exists, even if it is damaged.
        Lookup::Index => LookupStep::Next(Lookup::RecordAgain),
        Lookup::RecordAgain if absent => LookupStep::State(Err(corrupt(key))),
        Lookup::Record | Lookup::RecordAgain => LookupStep::State(decode_state(key, result)),
    }
}

fn decode_state(key: &Key, result: Result<Rows, Error>) -> Result<Option<KeyState>, Error> {
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
        "a store returns at least one row before it stops"
    );
    let decode = |(key, value): &(Bytes, Bytes)| {
        let (_, key) = decode_record_key(key)?;
        let state = KeyState::decode(value).map_err(|_| corrupt(&key))?;
        Ok((key, Arc::new(state)))
    };
    rows.rows.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use quorate_core::bugs::Bugs;
    use quorate_core::contract::{Role, rng_from_seed};
    use quorate_core::ids::{KeyspaceId, NodeId, ReplicaId};
    use quorate_core::key::record_range;
    use quorate_core::time::Instant;
    use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
    use quorate_protocol::placement::Placement;
    use quorate_protocol::role::{Event, RoleId, Surroundings};
    use quorate_raft::settings::Timing;
    use quorate_role_testing::topology;

    use super::*;

    #[test]
    fn a_node_rejects_reads_of_keys_that_it_does_not_own() {
        let members = topology((1..=3).map(NodeId), 8, |_| 0);
        let keyspace = Keyspace {
            id: KeyspaceId(1),
            settings: KeyspaceSettings::quorum("ks", 3),
            groups: Vec::new(),
        };
        let surroundings = Surroundings {
            replica: ReplicaId::new(NodeId(9), 0xd1),
            alive: members.ids().collect(),
            placement: Placement::new(members).unwrap(),
            raft: Timing::default(),
            bugs: Bugs::none(),
        };
        let mut replica = Replica::new(&keyspace, &surroundings).unwrap();
        let mut rng = rng_from_seed(1);
        let now = Now {
            instant: Instant(0),
            wall: WallTime(0),
        };
        let header = Header {
            generation: 1,
            request: 1,
            deadline: Instant(1),
            trace: None,
        };
        let from = Address {
            node: NodeId(1),
            role: RoleId::Coordinator(keyspace.id),
        };
        let range = record_range(keyspace.id, None, None);
        let fetch = Message::Fetch {
            key: Key::try_from("k").unwrap(),
        };
        let fetch_range = Message::FetchRange {
            start: range.start,
            end: range.end,
            limit: 10,
        };
        for message in [fetch, fetch_range] {
            let mut effects = Vec::new();
            let event = Event::Message {
                from,
                header,
                message,
            };
            replica.handle(now, &mut rng, event, &mut effects);
            assert_eq!(effects, [Effect::EndTurn]);
            effects.clear();
            replica.handle(now, &mut rng, Event::TurnEnded, &mut effects);
            let rejected = |effect: &Effect| matches!(effect, Effect::Send { to, message: Message::Failed(Error::Refused(_)), .. } if *to == from);
            assert!(effects.len() == 1 && rejected(&effects[0]), "{effects:?}");
        }
    }
}
