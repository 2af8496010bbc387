//! Client requests: which are rejected immediately, and to which replicas the others are sent.

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

use super::{Coordinator, HEDGE_AFTER, MAX_PAGE, REPAIR_ONE_IN, REPAIR_TIMEOUT, SCAN_SOFT_DEADLINE};
use crate::many::Many;
use crate::operation::{Kind, Origin, Progress, RequestDetails, reply};
use crate::read::Read;
use crate::scan::Scan;
use crate::write::{Mutation, Write};

/// How long a forwarded put is remembered beyond its deadline: longer than any network delays a message, so that a
/// duplicate is never executed as a second put.
const FORWARD_DEDUP: Duration = Duration::from_secs(10);

impl Coordinator {
    /// A client's request, forwarded by another node's coordinator.
    pub(super) fn forwarded(
        &mut self,
        from: Address,
        header: Header,
        request: Request,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_duplicate(from, header, now) && header.deadline > now.instant {
            self.request(Origin::Peer(from, header), header, request, now, rng, effects);
        }
    }

    /// Whether this request of another coordinator has arrived before.
    pub(super) fn is_duplicate(&mut self, from: Address, header: Header, now: Now) -> bool {
        let until = header.deadline.max(now.instant) + FORWARD_DEDUP;
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
                "keyspace {name:?} is in quorum mode, which does not support request {}",
                request.operation_name()
            ))
        };
        let many = matches!(request, Request::PutMany { .. } | Request::GetMany { .. });
        let operation = match request.operation() {
            // Requests for many keys are not forwarded as such.
            Some(_) if many && matches!(origin, Origin::Peer(..)) => None,
            operation => operation.filter(|_| matches!(request.target(), Target::Keyspace(_))),
        };
        let Some(operation) = operation else {
            let answer = reply(origin, Err(unsupported(&request)), effects);
            return self.finish_key(answer, now, effects);
        };
        let default = match request.is_read() {
            true => settings.read_level,
            false => settings.write_level,
        };
        let level = request.level().unwrap_or(default);
        let required = match level.required(settings.replicas) {
            Ok(required) => required,
            Err(error) => {
                let answer = reply(origin, Err(error), effects);
                return self.finish_key(answer, now, effects);
            }
        };
        let details = RequestDetails::new(origin, &header, operation, (level, required), now, rng);
        if details.deadline <= now.instant {
            let error = self.deadline_error(&request, required);
            return self.reject(details, error, now, effects);
        }
        match request {
            Request::Put {
                key,
                value,
                context,
                write_id,
                ..
            } => {
                let mutation = Mutation {
                    key,
                    value,
                    context,
                    write_id,
                };
                self.put(details, mutation, now, effects);
            }
            Request::Get { key, .. } => {
                let plan = self.read_plan(required, rng);
                self.get(details, key, plan, now, effects);
            }
            Request::PutMany { items, write_id, .. } => {
                self.put_many(details, items, write_id, now, effects);
            }
            Request::GetMany { keys, .. } => self.get_many(details, keys, now, rng, effects),
            Request::Scan {
                start,
                end,
                after_start,
                limit,
                ..
            } => {
                let range = self.range(start, end, after_start);
                self.scan(details, range, limit.clamp(1, MAX_PAGE), now, effects);
            }
            other => self.reject(details, unsupported(&other), now, effects),
        }
    }

    /// Rejects a request before anything was executed.
    fn reject(&mut self, mut details: RequestDetails, error: Error, now: Now, effects: &mut Vec<Effect>) {
        let answer = details.respond(Err(error), self.me(), &self.keyspace.settings.name, now, effects);
        self.finish_key(answer, now, effects);
    }

    /// Whether a read repairs stale replicas, and whether it contacts all replicas for that.
    fn read_plan(&self, required: u8, rng: &mut Rng) -> (bool, bool) {
        let repair = self.keyspace.settings.read_repair == ReadRepair::Async;
        let all = repair && (required > 1 || rng.next_u32().is_multiple_of(REPAIR_ONE_IN));
        (repair, all)
    }

    // ---- many keys ----

    /// Begins one operation per key: calls `begin` with the details of its part and the key.
    fn begin_each<T>(
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
        self.last_operation += 1;
        let request = self.last_operation;
        let details = many.details.clone();
        self.many.insert(request, many);
        for (place, key) in keys.into_iter().enumerate() {
            let part = details.part(request, place, operation);
            begin(self, part, (place, key), effects);
        }
    }

    fn put_many(
        &mut self,
        details: RequestDetails,
        items: Vec<PutItem>,
        write_id: WriteId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let many = Many::puts(details, items.len());
        self.begin_each(
            many,
            items,
            Operation::Put,
            (now, effects),
            |role, part, (place, item), effects| {
                let PutItem { key, value, context } = item;
                let mutation = Mutation {
                    key,
                    value,
                    context,
                    write_id: write_id.nth(place),
                };
                role.put(part, mutation, now, effects);
            },
        );
    }

    fn get_many(
        &mut self,
        details: RequestDetails,
        keys: Vec<Key>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) {
        let plan = self.read_plan(details.required, rng);
        let many = Many::gets(details, keys.len());
        self.begin_each(
            many,
            keys,
            Operation::Get,
            (now, effects),
            |role, part, (_, key), effects| {
                role.get(part, key, plan, now, effects);
            },
        );
    }

    /// The error of a request whose deadline passed before it was processed.
    fn deadline_error(&self, request: &Request, required: u8) -> Error {
        match request.is_read() {
            false => Error::Overloaded(format!(
                "deadline passed before {} processed the write; nothing was written: raise the timeout, or send fewer \
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

    fn put(&mut self, mut details: RequestDetails, mutation: Mutation, now: Now, effects: &mut Vec<Effect>) {
        let size = mutation.value.as_ref().map_or(0, Bytes::len);
        if size > MAX_VALUE_BYTES {
            let error = Error::LimitExceeded {
                what: "the value's length in bytes".to_owned(),
                size: size as u64,
                limit: MAX_VALUE_BYTES as u64,
                remedy: "split it over several keys".to_owned(),
            };
            return self.reject(details, error, now, effects);
        }
        let seen = mutation.context.as_ref();
        let seen = seen.map(|context| context.for_key(self.keyspace.id, &mutation.key));
        let seen = match seen.transpose() {
            Ok(seen) => seen.cloned(),
            Err(error) => return self.reject(details, error, now, effects),
        };
        let replicas = self.preference.of(&mutation.key);
        let alive = replicas.iter().filter(|node| self.alive(**node)).count() as u8;
        if alive < details.required {
            let required = details.required;
            return self.reject(details, Error::unavailable(required, alive), now, effects);
        }
        let me = self.me();
        if !replicas.contains(&me) {
            let first = replicas.iter().find(|node| self.alive(**node));
            let first = *first.expect("the level requires at least one replica, and enough are alive");
            return self.forward(details, mutation, first, now, effects);
        }
        let message = LocalMessage::Assign {
            key: mutation.key.clone(),
            value: mutation.value.clone(),
            context: seen,
            write_id: mutation.write_id,
        };
        let mut write = Write::new(
            (self.keyspace.id, mutation.key.clone()),
            me,
            replicas,
            &self.surroundings.alive,
        );
        if !details.is_forwarded() {
            write.keep_mutation(mutation);
        }
        details.attempts.begin();
        let id = self.begin(details, Kind::Write(write), None, now);
        let pending = &self.pending[&id];
        effects.push(Effect::SendLocal {
            to: self.replica(me).role,
            header: self.header(id, pending.details.deadline, pending.details.trace),
            message,
        });
    }

    /// Forwards a put to a node that holds a replica of its key.
    fn forward(
        &mut self,
        mut details: RequestDetails,
        mutation: Mutation,
        to: NodeId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if details.is_forwarded() {
            let error = Error::Refused(format!(
                "{} holds no replica of {} in generation {}: refresh the topology",
                self.me(),
                mutation.key,
                self.preference.topology().generation
            ));
            return self.reject(details, error, now, effects);
        }
        details.attempts.begin();
        let id = self.begin(details, Kind::Forwarded { to }, None, now);
        self.send_forward(id, mutation, to, effects);
    }

    fn send_forward(&mut self, id: u64, mutation: Mutation, to: NodeId, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let request = Request::Put {
            keyspace: self.keyspace.id,
            key: mutation.key,
            value: mutation.value,
            context: mutation.context,
            level: Some(pending.details.level),
            write_id: mutation.write_id,
        };
        self.send(id, self.coordinator(to), Message::Forward(request), effects);
    }

    /// The own replica has rejected a put before it was sent to others: nothing was written anywhere. If its own disk is
    /// the reason, and enough other replicas are reachable, forwards the put to another replica of the key, whose
    /// response becomes the response.
    pub(super) fn rejected_locally(&mut self, id: u64, error: Error, now: Now, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Kind::Write(write) = &mut pending.kind else {
            return;
        };
        pending.details.attempts.rejected();
        let own_disk = matches!(error, Error::StorageFull(_) | Error::CorruptRecord(_));
        let enough = write.targets().count() >= usize::from(pending.details.required);
        let to = write.targets().next().filter(|_| own_disk && enough);
        let (Some(to), Some(mutation)) = (to, write.take_mutation()) else {
            return self.conclude(id, Progress::Done(Err(error)), now, effects);
        };
        pending.details.attempts.begin();
        pending.kind = Kind::Forwarded { to };
        self.send_forward(id, mutation, to, effects);
    }

    // ---- reads ----

    /// Fetches from as many replicas as the level requires, or from `all` of them; from the own replica first.
    fn get(
        &mut self,
        details: RequestDetails,
        key: Key,
        (repair, all): (bool, bool),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me();
        let copies = self.preference.of(&key).iter();
        let mut copies: Vec<(NodeId, bool)> = copies.map(|node| (*node, self.alive(*node))).collect();
        let alive = copies.iter().filter(|(_, alive)| *alive).count() as u8;
        let required = details.required;
        if alive < required {
            return self.reject(details, Error::unavailable(required, alive), now, effects);
        }
        copies.sort_by_key(|(node, _)| *node != me);
        let mut read = Read::new((self.keyspace.id, key.clone()), me, &copies, repair);
        let requested = read.send_more(if all { copies.len() } else { usize::from(required) });
        let hedge = read.has_unsent().then_some(HEDGE_AFTER);
        let id = self.begin(details, Kind::Read(read), hedge, now);
        for node in requested {
            let message = Message::Fetch { key: key.clone() };
            self.send(id, self.replica(node), message, effects);
        }
    }

    /// Reads a key from all replicas, without a client, so that a corrupt record of it is found and healed.
    pub(super) fn read_all(&mut self, key: Key, now: Now, effects: &mut Vec<Effect>) {
        let required = self.keyspace.settings.replicas;
        let details = RequestDetails::own(
            Operation::Get,
            (Level::All, required),
            now.instant + REPAIR_TIMEOUT,
            now,
        );
        self.get(details, key, (false, true), now, effects);
    }

    fn range(&self, start: Option<Key>, end: Option<Key>, after_start: bool) -> Range<Bytes> {
        let mut range = record_range(self.keyspace.id, start.as_ref(), end.as_ref());
        if let (true, Some(start)) = (after_start, &start) {
            // Encoded keys are self-delimiting: no key sorts between a key and the same key with a zero byte appended.
            range.start = [record_key(self.keyspace.id, start).as_ref(), &[0]]
                .concat()
                .into();
        }
        range
    }

    fn scan(
        &mut self,
        details: RequestDetails,
        range: Range<Bytes>,
        limit: u32,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let required = details.required;
        if let Err(alive) = Scan::covers(&self.surroundings.alive, &self.preference, required) {
            return self.reject(details, Error::unavailable(required, alive), now, effects);
        }
        if range.is_empty() {
            let page = Page {
                entries: Vec::new(),
                next: None,
            };
            let (me, mut details) = (self.me(), details);
            let name = &self.keyspace.settings.name;
            let answer = details.respond(Ok(Response::Page(page)), me, name, now, effects);
            return self.finish_key(answer, now, effects);
        }
        let scan = Scan::new(
            self.keyspace.id,
            self.me(),
            limit as usize,
            self.surroundings.alive.clone(),
        );
        let requested: Vec<NodeId> = scan.requested().collect();
        let id = self.begin(details, Kind::Scan(scan), Some(SCAN_SOFT_DEADLINE), now);
        for node in requested {
            let message = Message::FetchRange {
                start: range.start.clone(),
                end: range.end.clone(),
                limit,
            };
            self.send(id, self.replica(node), message, effects);
        }
    }
}
