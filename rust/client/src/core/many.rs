//! Operations on many keys of a keyspace in quorum mode: split into parts, each for the node that its keys prefer.
//!
//! A node coordinates all keys of a request together, and sends one message to each replica for all of them. So the
//! keys are grouped by the node that a request for each would go to (the first of its usable replicas), and each group
//! is split into **parts** of bounded size ([`PART_KEYS`], [`PART_BYTES`]). A part is an operation of its own, with its
//! own routing, deadline and retries. Few parts of an operation are in flight at each node ([`WINDOW`]), for fairness
//! and so that the node admits them; the timeout of a part begins when it is sent.
//!
//! Each key has its own result. A part that fails as a whole fails each of its keys. An entry that did not fit into a
//! response is read again in a part of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_core::error::Error;
use quorate_core::ids::{BootId, KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::Instant;
use quorate_protocol::api::{Entry, PutItem, Request, Response, Written};
use quorate_versions::WriteId;

use super::event::{CallOptions, Outcome};
use super::operation::Draft;

/// Maximum number of keys of a part.
pub const PART_KEYS: usize = 256;
/// Approximate maximum of bytes of keys and values of a part; a single item may be larger.
pub const PART_BYTES: usize = 256 << 10;
/// Maximum number of parts of one operation that are in flight at one node.
pub const WINDOW: usize = 4;

/// Ids of parts start here; ids of the application are below, those of the client's own operations above.
pub(super) const PARTS: u64 = 1 << 54;

/// The keys in the order of the request, and their results.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Keys {
    /// An item is `None` once it was moved into a request.
    Put(Vec<Option<PutItem>>, Vec<Option<Result<Written, Error>>>),
    /// Keys are kept: they may have to be read again.
    Get(Vec<Key>, Vec<Option<Result<Entry, Error>>>),
}

impl Keys {
    pub(super) fn key(&self, place: usize) -> &Key {
        match self {
            Keys::Put(items, _) => &items[place].as_ref().expect("it is not in flight").key,
            Keys::Get(keys, _) => &keys[place],
        }
    }

    pub(super) fn size(&self, place: usize) -> usize {
        match self {
            Keys::Put(items, _) => items[place].as_ref().map_or(0, PutItem::size),
            Keys::Get(keys, _) => keys[place].size(),
        }
    }

    pub(super) fn open(&self) -> Vec<usize> {
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

/// The keys whose preferred node is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) queue: VecDeque<usize>,
    /// Each of these is sent in a part of its own.
    pub(super) alone: VecDeque<usize>,
    /// The number of parts in flight.
    pub(super) parts: usize,
}

/// An operation on many keys.
///
/// Invariants: a key without a result is in one queue, or in one part in flight; there are `open` of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Many {
    pub(super) keyspace: KeyspaceId,
    pub(super) level: Option<Level>,
    pub(super) options: CallOptions,
    pub(super) submitted: Instant,
    pub(super) keys: Keys,
    pub(super) open: usize,
    /// By the preferred node of the key; `None` while unknown.
    pub(super) groups: BTreeMap<Option<NodeId>, Group>,
    /// Of keys and values, at submission.
    pub(super) bytes: usize,
    /// The nodes that have responded.
    pub(super) answered: BTreeSet<(NodeId, Option<BootId>)>,
    pub(super) attempts: u8,
    pub(super) draft: Option<Draft>,
}

/// A part in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Part {
    pub(super) many: u64,
    pub(super) group: Option<NodeId>,
    /// The indexes of its keys.
    pub(super) places: Vec<usize>,
}

impl Many {
    /// The keys of the next part for a node, if another one may be in flight.
    pub(super) fn next(&mut self, of: Option<NodeId>) -> Option<Vec<usize>> {
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

    /// The request for these keys. The write ids of puts start at `write_id`.
    pub(super) fn request(&mut self, places: &[usize], write_id: WriteId) -> Request {
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

    pub(super) fn fail(&mut self, place: usize, error: Error) {
        let before = match &mut self.keys {
            Keys::Put(_, results) => results[place].replace(Err(error)).is_some(),
            Keys::Get(_, results) => results[place].replace(Err(error)).is_some(),
        };
        assert!(!before, "a key has one result");
        self.open -= 1;
    }

    /// Records the result of a part.
    pub(super) fn take(&mut self, part: &Part, result: Result<Response, Error>) {
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
                let error = result
                    .err()
                    .unwrap_or_else(|| Error::Refused("unexpected response type".to_owned()));
                for place in places {
                    self.fail(place, error.clone());
                }
            }
        }
    }

    /// The outcome of the whole operation.
    pub(super) fn into_outcome(self, now: Instant) -> Outcome {
        let response = match self.keys {
            Keys::Put(_, results) => Response::WrittenMany(results.into_iter().flatten().collect()),
            Keys::Get(_, results) => Response::Entries(results.into_iter().flatten().collect()),
        };
        let mut answered = self.answered.into_iter();
        // The node is named only if it is the only one.
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
