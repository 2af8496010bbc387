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

use super::alphabet::{CallOptions, Outcome};
use super::operation::Draft;

/// The most keys of a part.
pub const PART_KEYS: usize = 256;
/// About the most bytes of keys and values of a part; a single item may be larger.
pub const PART_BYTES: usize = 256 << 10;
/// How many parts of one operation are under way at one node.
pub const WINDOW: usize = 4;

/// The parts have ids from here on, up to those of the client's own operations; the application's are below.
pub(super) const PARTS: u64 = 1 << 54;

/// What is asked for, in the order of the keys, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Keys {
    /// An item is gone once it is part of a request.
    Put(Vec<Option<PutItem>>, Vec<Option<Result<Written, Error>>>),
    /// A key stays: it may have to be read again.
    Get(Vec<Key>, Vec<Option<Result<Entry, Error>>>),
}

impl Keys {
    pub(super) fn key(&self, place: usize) -> &Key {
        match self {
            Keys::Put(items, _) => &items[place].as_ref().expect("it is not under way").key,
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

/// The keys that one node is to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Group {
    pub(super) queue: VecDeque<usize>,
    /// Each of these goes by itself.
    pub(super) alone: VecDeque<usize>,
    /// How many parts are under way.
    pub(super) parts: usize,
}

/// An operation on many keys.
///
/// Invariants: a key that has no result is in one queue, or in one part that is under way; `open` keys have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Many {
    pub(super) keyspace: KeyspaceId,
    pub(super) level: Option<Level>,
    pub(super) options: CallOptions,
    pub(super) submitted: Instant,
    pub(super) keys: Keys,
    pub(super) open: usize,
    /// By the node that a request for the key would go to; `None` while that is not known.
    pub(super) groups: BTreeMap<Option<NodeId>, Group>,
    /// Of keys and values, as it was submitted.
    pub(super) bytes: usize,
    /// Who has answered.
    pub(super) answered: BTreeSet<(NodeId, Option<BootId>)>,
    pub(super) attempts: u8,
    pub(super) draft: Option<Draft>,
}

/// A part under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Part {
    pub(super) many: u64,
    pub(super) group: Option<NodeId>,
    /// Which of its keys.
    pub(super) places: Vec<usize>,
}

impl Many {
    /// The keys of the next part for a node, if one may be under way.
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

    /// What a node is asked for these keys. The puts are named from `write_id` on.
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

    /// Takes what a part has come to.
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
    pub(super) fn into_outcome(self, now: Instant) -> Outcome {
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
