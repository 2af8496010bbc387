//! How requests begin: what is refused at once, and whom the others ask first.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::contract::Rng;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::{Key, MAX_VALUE_BYTES, record_key, record_range};
use quorate_core::level::Level;
use quorate_core::time::Now;
use quorate_protocol::api::request::Target;
use quorate_protocol::api::{Page, PutItem, Request, Response};
use quorate_protocol::keyspace::ReadRepair;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect};
use quorate_protocol::telemetry::Operation;
use quorate_versions::WriteId;
use rand_core::Rng as _;

use super::{Coordinator, HEDGE_AFTER, MAX_PAGE, REPAIR_ONE_IN, REPAIR_PATIENCE, SCAN_PATIENCE};
use crate::many::Many;
use crate::operation::{Kind, Origin, RequestDetails, reply};
use crate::progress::Progress;
use crate::read::Read;
use crate::scan::Scan;
use crate::write::{Change, Write};

/// How long a put that another node forwarded is remembered beyond its deadline: longer than a message stays in any
/// network, so that a repeated one is never taken for a second put.
const FORWARD_MEMORY: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Another node's coordinator asks for one of its clients.
    pub(super) fn forwarded(
        &mut self,
        from: Address,
        header: Header,
        request: Request,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_repeated(from, header, now) && header.deadline > now.instant {
            self.request(Origin::Peer(from, header), header, request, now, rng, effects);
        }
    }

    /// Whether this request of another coordinator has come before.
    pub(super) fn is_repeated(&mut self, from: Address, header: Header, now: Now) -> bool {
        let until = header.deadline.max(now.instant) + FORWARD_MEMORY;
        let new = self
            .forwarded
            .is_new((from.node, header.request), until, now.instant);
        !new && !self.surroundings.bugs.has(Bug::DuplicatesAccepted)
    }

    pub(super) fn request(
        &mut self,
        origin: Origin,
        header: Header,
        request: Request,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        let settings = &self.keyspace.settings;
        let unsupported = |request: &Request| {
            let name = &self.keyspace.settings.name;
            Error::invalid(format!(
                "keyspace {name:?} is in quorum mode, which has no request {}",
                request.operation_name()
            ))
        };
        let many = matches!(request, Request::PutMany { .. } | Request::GetMany { .. });
        let operation = match request.operation() {
            // Requests for many keys are not handed on as such.
            Some(_) if many && matches!(origin, Origin::Peer(..)) => None,
            operation => operation.filter(|_| matches!(request.target(), Target::Keyspace(_))),
        };
        let Some(operation) = operation else {
            let answer = reply(origin, Err(unsupported(&request)), effects);
            return self.many_answer(answer, now, effects);
        };
        let usual = match request.is_read() {
            true => settings.read_level,
            false => settings.write_level,
        };
        let level = request.level().unwrap_or(usual);
        let required = match level.required(settings.replicas) {
            Ok(required) => required,
            Err(error) => {
                let answer = reply(origin, Err(error), effects);
                return self.many_answer(answer, now, effects);
            }
        };
        let ask = RequestDetails::new(origin, &header, operation, (level, required), now, rng);
        if ask.deadline <= now.instant {
            let error = self.too_late(&request, required);
            return self.refuse(ask, error, now, effects);
        }
        match request {
            Request::Put {
                key,
                value,
                context,
                write_id,
                ..
            } => {
                let change = Change {
                    key,
                    value,
                    context,
                    write_id,
                };
                self.put(ask, change, now, effects);
            }
            Request::Get { key, .. } => {
                let how = self.how_to_read(required, rng);
                self.get(ask, key, how, now, effects);
            }
            Request::PutMany { items, write_id, .. } => {
                self.put_many(ask, items, write_id, now, effects);
            }
            Request::GetMany { keys, .. } => self.get_many(ask, keys, now, rng, effects),
            Request::Scan {
                start,
                end,
                after_start,
                limit,
                ..
            } => {
                let range = self.range(start, end, after_start);
                self.scan(ask, range, limit.clamp(1, MAX_PAGE), now, effects);
            }
            other => self.refuse(ask, unsupported(&other), now, effects),
        }
    }

    /// Answers without having done anything.
    fn refuse(&mut self, mut ask: RequestDetails, error: Error, now: Now, effects: &mut Vec<Effect>) {
        let answer = ask.answer(Err(error), self.me(), &self.keyspace.settings.name, now, effects);
        self.many_answer(answer, now, effects);
    }

    /// Whether a read repairs what it finds wanting, and whether it asks all replicas because of that.
    fn how_to_read(&self, required: u8, rng: &mut Rng) -> (bool, bool) {
        let repair = self.keyspace.settings.read_repair == ReadRepair::Async;
        let all = repair && (required > 1 || rng.next_u32().is_multiple_of(REPAIR_ONE_IN));
        (repair, all)
    }

    // ---- many keys ----

    /// Begins as many exchanges as there are keys; `begin` is given each with what it is to be asked as.
    fn each<T>(
        &mut self,
        many: Many,
        keys: Vec<T>,
        operation: Operation,
        (now, effects): (Now, &mut Vec<Effect>),
        mut begin: impl FnMut(&mut Self, RequestDetails, (usize, T), &mut Vec<Effect>),
    ) {
        if keys.is_empty() {
            return self.finish_many(many, now, effects);
        }
        self.last_exchange += 1;
        let request = self.last_exchange;
        let ask = many.ask.clone();
        self.many.insert(request, many);
        for (place, key) in keys.into_iter().enumerate() {
            let part = ask.part(request, place, operation);
            begin(self, part, (place, key), effects);
        }
    }

    fn put_many(
        &mut self,
        ask: RequestDetails,
        items: Vec<PutItem>,
        write_id: WriteId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let many = Many::puts(ask, items.len());
        self.each(
            many,
            items,
            Operation::Put,
            (now, effects),
            |role, part, (place, item), effects| {
                let PutItem { key, value, context } = item;
                let change = Change {
                    key,
                    value,
                    context,
                    write_id: write_id.nth(place),
                };
                role.put(part, change, now, effects);
            },
        );
    }

    fn get_many(
        &mut self,
        ask: RequestDetails,
        keys: Vec<Key>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        let how = self.how_to_read(ask.required, rng);
        let many = Many::gets(ask, keys.len());
        self.each(
            many,
            keys,
            Operation::Get,
            (now, effects),
            |role, part, (_, key), effects| {
                role.get(part, key, how, now, effects);
            },
        );
    }

    /// What to say to a request whose deadline was over before it was looked at.
    fn too_late(&self, request: &Request, required: u8) -> Error {
        match request.is_read() {
            false => Error::Overloaded(format!(
                "{} began with the write only after its deadline, and wrote nothing: allow more time, or send fewer \
                 requests at once",
                self.me()
            )),
            true => Error::ReadTimeout {
                answered: 0,
                required,
            },
        }
    }

    // ---- writes ----

    fn put(&mut self, mut ask: RequestDetails, change: Change, now: Now, effects: &mut Vec<Effect>) {
        let size = change.value.as_ref().map_or(0, Bytes::len);
        if size > MAX_VALUE_BYTES {
            let error = Error::LimitExceeded {
                what: "the value's length in bytes".to_owned(),
                size: size as u64,
                limit: MAX_VALUE_BYTES as u64,
                remedy: "split it over several keys".to_owned(),
            };
            return self.refuse(ask, error, now, effects);
        }
        let seen = change.context.as_ref();
        let seen = seen.map(|context| context.for_key(self.keyspace.id, &change.key));
        let seen = match seen.transpose() {
            Ok(seen) => seen.cloned(),
            Err(error) => return self.refuse(ask, error, now, effects),
        };
        let replicas = self.preference.of(&change.key);
        let alive = replicas.iter().filter(|node| self.alive(**node)).count() as u8;
        if alive < ask.required {
            let required = ask.required;
            return self.refuse(ask, Error::unavailable(required, alive), now, effects);
        }
        let me = self.me();
        if !replicas.contains(&me) {
            let first = replicas.iter().find(|node| self.alive(**node));
            let first = *first.expect("the level requires at least one, and so many are alive");
            return self.forward(ask, change, first, now, effects);
        }
        let message = LocalMessage::Assign {
            key: change.key.clone(),
            value: change.value.clone(),
            context: seen,
            write_id: change.write_id,
        };
        let mut write = Write::new(
            (self.keyspace.id, change.key.clone()),
            me,
            replicas,
            &self.surroundings.alive,
        );
        if !ask.is_forwarded() {
            write.keep(change);
        }
        ask.attempts.begin();
        let id = self.begin(ask, Kind::Write(write), None, now);
        let pending = &self.pending[&id];
        effects.push(Effect::SendLocal {
            to: self.replica(me).role,
            header: self.header(id, pending.ask.deadline, pending.ask.trace),
            message,
        });
    }

    /// Hands a put to a node that holds a replica of its key.
    fn forward(
        &mut self,
        mut ask: RequestDetails,
        change: Change,
        to: NodeId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if ask.is_forwarded() {
            let error = Error::Refused(format!(
                "{} holds no replica of {} in generation {}: refresh the topology",
                self.me(),
                change.key,
                self.preference.topology().generation
            ));
            return self.refuse(ask, error, now, effects);
        }
        ask.attempts.begin();
        let id = self.begin(ask, Kind::Forwarded { to }, None, now);
        self.send_forward(id, change, to, effects);
    }

    fn send_forward(&mut self, id: u64, change: Change, to: NodeId, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let request = Request::Put {
            keyspace: self.keyspace.id,
            key: change.key,
            value: change.value,
            context: change.context,
            level: Some(pending.ask.level),
            write_id: change.write_id,
        };
        self.send(id, self.coordinator(to), Message::Forward(request), effects);
    }

    /// The own replica does not take a put, and nobody else has heard of it: nothing has happened anywhere. If that is
    /// because of its own disk, and there are enough others, another replica of the key is asked to coordinate the
    /// put; what that one says is the answer.
    pub(super) fn refused(&mut self, id: u64, error: Error, now: Now, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Kind::Write(write) = &mut pending.kind else {
            return;
        };
        pending.ask.attempts.rejected();
        let own_disk = matches!(error, Error::StorageFull(_) | Error::CorruptRecord(_));
        let enough = write.targets().count() >= usize::from(pending.ask.required);
        let to = write.targets().next().filter(|_| own_disk && enough);
        let (Some(to), Some(change)) = (to, write.forget()) else {
            return self.conclude(id, Progress::Done(Err(error)), now, effects);
        };
        pending.ask.attempts.begin();
        pending.kind = Kind::Forwarded { to };
        self.send_forward(id, change, to, effects);
    }

    // ---- reads ----

    /// Asks as many replicas as the level requires, or `all` of them. The own one first: it is next door.
    fn get(
        &mut self,
        ask: RequestDetails,
        key: Key,
        (repair, all): (bool, bool),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me();
        let copies = self.preference.of(&key).iter();
        let mut copies: Vec<(NodeId, bool)> = copies.map(|node| (*node, self.alive(*node))).collect();
        let alive = copies.iter().filter(|(_, alive)| *alive).count() as u8;
        let required = ask.required;
        if alive < required {
            return self.refuse(ask, Error::unavailable(required, alive), now, effects);
        }
        copies.sort_by_key(|(node, _)| *node != me);
        let mut read = Read::new((self.keyspace.id, key.clone()), me, &copies, repair);
        let asked = read.ask(if all { copies.len() } else { usize::from(required) });
        let hedge = read.can_ask().then_some(HEDGE_AFTER);
        let id = self.begin(ask, Kind::Read(read), hedge, now);
        for node in asked {
            let message = Message::Fetch { key: key.clone() };
            self.send(id, self.replica(node), message, effects);
        }
    }

    /// Reads a key for nobody, from all replicas, so that a corrupt record of it is found and healed.
    pub(super) fn check(&mut self, key: Key, now: Now, effects: &mut Vec<Effect>) {
        let required = self.keyspace.settings.replicas;
        let ask = RequestDetails::own(
            Operation::Get,
            (Level::All, required),
            now.instant + REPAIR_PATIENCE,
            now,
        );
        self.get(ask, key, (false, true), now, effects);
    }

    fn range(&self, start: Option<Key>, end: Option<Key>, after_start: bool) -> Range<Bytes> {
        let mut range = record_range(self.keyspace.id, start.as_ref(), end.as_ref());
        if let (true, Some(start)) = (after_start, &start) {
            // Encoded keys delimit themselves: nothing lies between a key and the key with a zero byte behind it.
            range.start = [record_key(self.keyspace.id, start).as_ref(), &[0]]
                .concat()
                .into();
        }
        range
    }

    fn scan(
        &mut self,
        ask: RequestDetails,
        range: Range<Bytes>,
        limit: u32,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let required = ask.required;
        if let Err(alive) = Scan::covers(&self.surroundings.alive, &self.preference, required) {
            return self.refuse(ask, Error::unavailable(required, alive), now, effects);
        }
        if range.is_empty() {
            let page = Page {
                entries: Vec::new(),
                next: None,
            };
            let (me, mut ask) = (self.me(), ask);
            let name = &self.keyspace.settings.name;
            let answer = ask.answer(Ok(Response::Page(page)), me, name, now, effects);
            return self.many_answer(answer, now, effects);
        }
        let scan = Scan::new(
            self.keyspace.id,
            self.me(),
            limit as usize,
            self.surroundings.alive.clone(),
        );
        let asked: Vec<NodeId> = scan.asked().collect();
        let id = self.begin(ask, Kind::Scan(scan), Some(SCAN_PATIENCE), now);
        for node in asked {
            let message = Message::FetchRange {
                start: range.start.clone(),
                end: range.end.clone(),
                limit,
            };
            self.send(id, self.replica(node), message, effects);
        }
    }
}
