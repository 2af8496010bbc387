//! Operations on many keys of a keyspace in quorum mode: split into parts, each for the node that its keys prefer.
//!
//! A node coordinates as many keys in one request as it is asked for, and asks each replica once for all of them. So the keys are
//! grouped by the node that a request for each would go to (the first of its replicas that answers), and each group is cut into
//! **parts** that a node takes ([`PART_KEYS`], [`PART_BYTES`]). A part is an operation of its own, with all that belongs to one:
//! routing, deadline, retries. Few parts of an operation are under way at each node ([`WINDOW`]), so that others have their turn
//! and a node is not asked for more than it admits; the timeout of a part begins when it is sent.
//!
//! Each key has a result of its own. A part that fails as a whole gives each of its keys that error. An entry that did not fit
//! into an answer is read again by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_core::error::Error;
use quorate_core::ids::{BootId, KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::Instant;
use quorate_protocol::api::{Entry, PutItem, Request, Response, Written};
use quorate_versions::WriteId;

use super::operation::{Draft, Operation};
use super::sessions::OWN_OPERATIONS;
use super::submission::draft;
use super::{CallOptions, ClientCore, ClientEffect, Outcome, Step, Trace, closed, unsent};

/// The most keys of a part.
pub const PART_KEYS: usize = 256;
/// About the most bytes of keys and values of a part; a single item may be larger.
pub const PART_BYTES: usize = 256 << 10;
/// How many parts of one operation are under way at one node.
pub const WINDOW: usize = 4;

/// The parts have ids from here on, up to those of the client's own operations; the application's are below.
pub(super) const PARTS: u64 = OWN_OPERATIONS >> 1;

/// What is asked for, in the order of the keys, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Keys {
    /// An item is gone once it is part of a request.
    Put(Vec<Option<PutItem>>, Vec<Option<Result<Written, Error>>>),
    /// A key stays: it may have to be read again.
    Get(Vec<Key>, Vec<Option<Result<Entry, Error>>>),
}

impl Keys {
    fn key(&self, place: usize) -> &Key {
        match self {
            Keys::Put(items, _) => &items[place].as_ref().expect("it is not under way").key,
            Keys::Get(keys, _) => &keys[place],
        }
    }

    fn size(&self, place: usize) -> usize {
        match self {
            Keys::Put(items, _) => items[place].as_ref().map_or(0, PutItem::size),
            Keys::Get(keys, _) => keys[place].size(),
        }
    }

    fn open(&self) -> Vec<usize> {
        fn missing<T>(results: &[Option<T>]) -> Vec<usize> {
            let missing = results.iter().enumerate().filter(|(_, result)| result.is_none());
            missing.map(|(place, _)| place).collect()
        }
        match self {
            Keys::Put(_, results) => missing(results),
            Keys::Get(_, results) => missing(results),
        }
    }
}

/// The keys that one node is to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Group {
    queue: VecDeque<usize>,
    /// Each of these goes by itself.
    alone: VecDeque<usize>,
    /// How many parts are under way.
    parts: usize,
}

/// An operation on many keys.
///
/// Invariants: a key that has no result is in one queue, or in one part that is under way; `open` keys have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Many {
    keyspace: KeyspaceId,
    level: Option<Level>,
    options: CallOptions,
    submitted: Instant,
    keys: Keys,
    open: usize,
    /// By the node that a request for the key would go to; `None` while that is not known.
    groups: BTreeMap<Option<NodeId>, Group>,
    /// Of keys and values, as it was submitted.
    pub(super) bytes: usize,
    /// Who has answered.
    answered: BTreeSet<(NodeId, Option<BootId>)>,
    attempts: u8,
    draft: Option<Draft>,
}

/// A part under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Part {
    many: u64,
    group: Option<NodeId>,
    /// Which of its keys.
    places: Vec<usize>,
}

impl Many {
    /// The keys of the next part for a node, if one may be under way.
    fn next(&mut self, of: Option<NodeId>) -> Option<Vec<usize>> {
        let group = self.groups.get_mut(&of)?;
        if group.parts >= WINDOW {
            return None;
        }
        let (mut places, mut bytes) = (Vec::new(), 0);
        if let Some(place) = group.alone.pop_front() {
            places.push(place);
        } else {
            while let Some(&place) = group.queue.front() {
                bytes += self.keys.size(place);
                if !places.is_empty() && (places.len() >= PART_KEYS || bytes > PART_BYTES) {
                    break;
                }
                group.queue.pop_front();
                places.push(place);
            }
        }
        if places.is_empty() {
            return None;
        }
        group.parts += 1;
        Some(places)
    }

    /// What a node is asked for these keys. The puts are named from `write_id` on.
    fn request(&mut self, places: &[usize], write_id: WriteId) -> Request {
        let (keyspace, level) = (self.keyspace, self.level);
        match &mut self.keys {
            Keys::Put(items, _) => Request::PutMany {
                keyspace,
                items: places.iter().filter_map(|place| items[*place].take()).collect(),
                level,
                write_id,
            },
            Keys::Get(keys, _) => Request::GetMany {
                keyspace,
                keys: places.iter().map(|place| keys[*place].clone()).collect(),
                level,
            },
        }
    }

    fn fail(&mut self, place: usize, error: Error) {
        let before = match &mut self.keys {
            Keys::Put(_, results) => results[place].replace(Err(error)).is_some(),
            Keys::Get(_, results) => results[place].replace(Err(error)).is_some(),
        };
        assert!(!before, "a key has one result");
        self.open -= 1;
    }

    /// Takes what a part has come to.
    fn take(&mut self, part: &Part, result: Result<Response, Error>) {
        let group = self.groups.get_mut(&part.group).expect("a part has a group");
        group.parts -= 1;
        let places = part.places.iter().copied();
        match (&mut self.keys, result) {
            (Keys::Put(_, results), Ok(Response::WrittenMany(all))) => {
                for (place, result) in places.zip(all) {
                    results[place] = Some(result);
                    self.open -= 1;
                }
            }
            (Keys::Get(_, results), Ok(Response::Entries(all))) => {
                for (place, result) in places.zip(all) {
                    if matches!(result, Err(Error::LimitExceeded { .. })) && part.places.len() > 1 {
                        group.alone.push_back(place);
                        continue;
                    }
                    results[place] = Some(result);
                    self.open -= 1;
                }
            }
            (_, result) => {
                let error = result.err().unwrap_or_else(|| {
                    Error::Refused("the node answered something else than it was asked".to_owned())
                });
                for place in places {
                    self.fail(place, error.clone());
                }
            }
        }
    }

    /// The answer to the whole of it.
    fn into_outcome(self, now: Instant) -> Outcome {
        let response = match self.keys {
            Keys::Put(_, results) => Response::WrittenMany(results.into_iter().flatten().collect()),
            Keys::Get(_, results) => Response::Entries(results.into_iter().flatten().collect()),
        };
        let mut answered = self.answered.into_iter();
        // Several nodes are none in particular.
        let only = answered.next().filter(|_| answered.next().is_none());
        Outcome {
            result: Ok(response),
            node: only.map(|(node, _)| node),
            boot: only.and_then(|(_, boot)| boot),
            attempts: self.attempts,
            elapsed: now.since(self.submitted),
            trace_id: self.draft.map(|draft| draft.trace_id),
        }
    }
}

impl ClientCore {
    /// Takes an operation on many keys; gives the request back if it is another.
    pub(super) fn submit_many(
        &mut self,
        op: u64,
        request: Request,
        options: CallOptions,
        step: &mut Step<'_>,
    ) -> Option<Request> {
        let bytes = request.bytes();
        let (keyspace, level, keys, count) = match request {
            Request::PutMany {
                keyspace,
                items,
                level,
                ..
            } => {
                let count = items.len();
                let items = items.into_iter().map(Some).collect();
                (keyspace, level, Keys::Put(items, vec![None; count]), count)
            }
            Request::GetMany {
                keyspace,
                keys,
                level,
            } => {
                let count = keys.len();
                (keyspace, level, Keys::Get(keys, vec![None; count]), count)
            }
            other => return Some(other),
        };
        if let Err(error) = self.admit(bytes) {
            let outcome = unsent(error);
            step.effects.push(ClientEffect::Complete { op, outcome });
            return None;
        }
        let mut many = Many {
            keyspace,
            level,
            options,
            submitted: step.instant(),
            keys,
            open: count,
            groups: BTreeMap::new(),
            bytes,
            answered: BTreeSet::new(),
            attempts: 0,
            draft: draft(options.trace, step),
        };
        for place in 0..count {
            let too_large = match &many.keys {
                Keys::Put(items, _) => items[place].as_ref().and_then(|item| item.validate().err()),
                Keys::Get(..) => None,
            };
            if let Some(error) = too_large {
                many.fail(place, error);
                continue;
            }
            let node = options
                .node
                .or_else(|| self.first_to_ask(keyspace, many.keys.key(place)));
            many.groups.entry(node).or_default().queue.push_back(place);
        }
        self.bytes_in_flight += bytes;
        self.many.insert(op, many);
        self.ready_many.insert(op);
        None
    }

    /// Sends what may be sent of operations on many keys, and completes those that have all results.
    pub(super) fn advance_many(&mut self, step: &mut Step<'_>) {
        while let Some(op) = self.ready_many.pop_first() {
            let groups: Vec<Option<NodeId>> = self.many[&op].groups.keys().copied().collect();
            for group in groups {
                while let Some(places) = self.many.get_mut(&op).and_then(|many| many.next(group)) {
                    self.begin_part(op, group, places, step);
                }
            }
            if self.many[&op].open == 0 {
                self.finish_many(op, step);
            }
        }
    }

    fn begin_part(&mut self, op: u64, group: Option<NodeId>, places: Vec<usize>, step: &mut Step<'_>) {
        let write_id = WriteId {
            client: self.config.client_id,
            sequence: self.write_sequence + 1,
        };
        let many = self.many.get_mut(&op).expect("it has parts");
        let request = many.request(&places, write_id);
        let mut options = many.options;
        if let Some(draft) = &many.draft {
            options.trace = Trace::Child(draft.context());
        }
        if !request.is_read() {
            self.write_sequence += places.len() as u64;
        }
        self.last_part += 1;
        let part = PARTS + self.last_part;
        let operation = Operation::new(request, options, step.instant(), draft(options.trace, step));
        self.parts.insert(
            part,
            Part {
                many: op,
                group,
                places,
            },
        );
        self.timers.insert((operation.timer, part));
        self.operations.insert(part, operation);
        self.route(part, step);
    }

    /// A part is finished.
    pub(super) fn part_ended(&mut self, part: u64, outcome: Outcome) {
        let part = self.parts.remove(&part).expect("a part ends once");
        let many = self.many.get_mut(&part.many).expect("it waits for its parts");
        many.attempts = many.attempts.max(outcome.attempts);
        many.answered
            .extend(outcome.node.map(|node| (node, outcome.boot)));
        many.take(&part, outcome.result);
        self.ready_many.insert(part.many);
    }

    fn finish_many(&mut self, op: u64, step: &mut Step<'_>) {
        let many = self.many.remove(&op).expect("it is finished once");
        self.bytes_in_flight -= many.bytes;
        if let Some(draft) = &many.draft {
            let name = match many.keys {
                Keys::Put(..) => "put_many",
                Keys::Get(..) => "get_many",
            };
            let collection = self.directory.keyspace(many.keyspace);
            let collection = collection.map(|keyspace| keyspace.settings.name.as_str());
            let attributes = vec![("quorate.parts".to_owned(), many.groups.len().to_string())];
            let span = draft.span(step.now.wall, (name, collection), attributes, None);
            step.effects.push(ClientEffect::Span(Box::new(span)));
        }
        let outcome = many.into_outcome(step.instant());
        step.effects.push(ClientEffect::Complete { op, outcome });
    }

    /// The client is being closed, and no part is under way any longer.
    pub(super) fn close_many(&mut self, step: &mut Step<'_>) {
        self.ready_many.clear();
        for op in self.many.keys().copied().collect::<Vec<u64>>() {
            let many = self.many.get_mut(&op).expect("it is there");
            for place in many.keys.open() {
                many.fail(place, closed());
            }
            self.finish_many(op, step);
        }
    }

    /// The parts that are under way: of each the id, that of the operation that it is part of, and which of its keys it has.
    pub fn parts(&self) -> impl Iterator<Item = (u64, u64, &[usize])> {
        self.parts
            .iter()
            .map(|(id, part)| (*id, part.many, &part.places[..]))
    }

    /// What holds of them between any two events.
    #[cfg(test)]
    pub(super) fn check_many(&self) {
        assert!(self.ready_many.is_empty() || self.closed);
        for (op, many) in &self.many {
            let parts: Vec<&Part> = self.parts.values().filter(|part| part.many == *op).collect();
            let queued = many
                .groups
                .values()
                .flat_map(|group| group.queue.iter().chain(&group.alone));
            let under_way = parts.iter().flat_map(|part| &part.places);
            let mut places: Vec<usize> = queued.chain(under_way).copied().collect();
            places.sort_unstable();
            assert_eq!(places, many.keys.open(), "operation {op}");
            assert_eq!(places.len(), many.open, "operation {op}");
            for (node, group) in &many.groups {
                let count = parts.iter().filter(|part| part.group == *node).count();
                assert_eq!(group.parts, count, "operation {op} at {node:?}");
                assert!(count <= WINDOW);
            }
        }
        for part in self.parts.keys() {
            assert!(self.operations.contains_key(part), "part {part} is no operation");
        }
    }
}
