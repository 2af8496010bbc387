//! Submission, progress and completion of operations on many keys ([`many`](super::many)).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::NodeId;
use quorate_protocol::api::Request;
use quorate_versions::WriteId;

use super::many::{Keys, Many, PARTS, Part};
use super::operation::Operation;
use super::sessions::OWN_OPERATIONS;
use super::submission::draft;
use super::{CallOptions, ClientCore, ClientEffect, Outcome, Step, Trace, closed, unsent};

const _: () = assert!(PARTS < OWN_OPERATIONS, "each id is of one kind");

impl ClientCore {
    /// Submits an operation on many keys; returns any other request.
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
                .or_else(|| self.preferred_node(keyspace, many.keys.key(place)));
            many.groups.entry(node).or_default().queue.push_back(place);
        }
        self.bytes_in_flight += bytes;
        self.many.insert(op, many);
        self.ready_many.insert(op);
        None
    }

    /// Sends the parts that may be sent, and completes the operations that have all results.
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

    /// A part has ended.
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

    /// The client is being closed, and no part is in flight any longer.
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

    /// The parts in flight: of each the id, the id of its operation, and the indexes of its keys.
    pub fn parts(&self) -> impl Iterator<Item = (u64, u64, &[usize])> {
        self.parts
            .iter()
            .map(|(id, part)| (*id, part.many, &part.places[..]))
    }

    /// Checks the invariants of these operations between events.
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
                assert!(count <= super::many::WINDOW);
            }
        }
        for part in self.parts.keys() {
            assert!(self.operations.contains_key(part), "part {part} is no operation");
        }
    }
}
